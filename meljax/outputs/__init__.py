"""The rows of `predict`, written for people, spreadsheets, programs, Raven and Audacity."""
