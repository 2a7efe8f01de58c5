"""TensorFlow Datasets (TFDS): finds, downloads, reads and builds sets without TensorFlow."""
