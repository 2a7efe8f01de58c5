"""Tables of files, Hugging Face metadata, and Raven and Audacity annotations as data sets."""
