"""Networks, tokenizers and pretrained weights."""
