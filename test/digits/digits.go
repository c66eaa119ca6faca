// Package digits reads the sample of hack/samples: a base model trained on handwritten digits, three adapters, and
// held-out images with their true labels.
package digits

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
)

// Image is one held-out image.
type Image struct {
	Name   string
	PNG    []byte
	Labels map[string]string // adapter → true label
}

// Base is the base model's folder within the sample's.
func Base(sample string) string { return filepath.Join(sample, "base") }

// Adapters is the folder of the adapters' folders.
func Adapters(sample string) string { return filepath.Join(sample, "adapters") }

// Images reads the held-out images; adapters are the columns of labels.csv after the first.
func Images(sample string) (images []Image, adapters []string, err error) {
	file, err := os.Open(filepath.Join(sample, "images", "labels.csv"))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	lines, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	adapters = lines[0][1:]
	for _, line := range lines[1:] {
		png, err := os.ReadFile(filepath.Join(sample, "images", line[0]))
		if err != nil {
			return nil, nil, err
		}
		image := Image{Name: line[0], PNG: png, Labels: make(map[string]string, len(adapters))}
		for i, adapter := range adapters {
			image.Labels[adapter] = line[1+i]
		}
		images = append(images, image)
	}
	return images, adapters, nil
}
