"""The stages that train the embedded models on phantoms."""
