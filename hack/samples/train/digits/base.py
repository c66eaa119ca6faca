"""Makes digits/base and digits/images: a tiny ViT trained briefly on the ten digits, and the published images.

Trained so briefly that adapters have something left to learn in the trunk. transformers 5 writes the weights under the
names of transformers 4 (vit.encoder.layer.0.attention.attention.query.weight), as bases on the Hub have them. Runs in
the current environment (requirements.txt).
"""

import csv

from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification

from digits import data

EPOCHS = 11


def main() -> None:
    labels = data.TASKS["base"][0]
    model = ViTForImageClassification(ViTConfig(
        image_size=32, patch_size=8, num_channels=3,
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=384,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    ))
    data.train(model, "base", epochs=EPOCHS, rate=5e-4)
    model.save_pretrained(data.OUT / "base")
    data.processor().save_pretrained(data.OUT / "base")

    images = data.OUT / "images"
    images.mkdir(exist_ok=True)
    digits = load_digits()
    _, _, published = data.split()
    with open(images / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        tasks = ["digit", "parity", "holes"]
        rows.writerow(["image", *tasks])
        for n, i in enumerate(published):
            (images / f"{n:04}.png").write_bytes(data.png(digits.images[i]))
            rows.writerow([f"{n:04}.png", *(data.TASKS[t][0][data.TASKS[t][1][digits.target[i]]] for t in tasks)])


if __name__ == "__main__":
    main()
