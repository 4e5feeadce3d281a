"""Provider ``sglang``: SGLang's Gated Delta Net layers."""
