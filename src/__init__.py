"""Captioner. Importing any part of it registers the OmegaConf resolvers that its configs use."""

from src.utils.run_folder import register_resolvers

register_resolvers()
