"""Registries of artifacts: repositories on the Hugging Face Hub, and directories laid out the same way.

Only `gdn_aot.registry.remote` imports huggingface_hub; nothing here imports torch or triton.
"""
