// Package preprocess turns what a client sends into what a model takes, as the model's own processor in transformers
// does: here, an encoded image into pixel_values.
//
// The truth is transformers' PIL-backed processors of ViT, DeiT and DINOv2 (5.23) over an image opened by Pillow
// (13.0): converted to RGB and resized by Pillow, then cropped, rescaled and normalized by numpy. The torchvision
// backends of the same processors resize in another arithmetic.
//
// Invariants: an Image is immutable and safe for concurrent use. Its pixel values are bit for bit those of the truth;
// of a JPEG alone, whose inverse transform may round either way, bytes differ by 3 at most. A config or a picture of
// which that could not be said is refused by name. Memory follows maxPixels, the bytes sent and the model's own size,
// not what a file claims; but a WebP of a few bytes can be a picture of one colour as large as maxPixels.
package preprocess
