"""open_clip's transformer blocks without what their output does not need.

The sums are the same up to rounding. Where a model has other layers, open_clip's own code runs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["pooled", "without_copies"]


class _Attention(nn.MultiheadAttention):
    """Self-attention on strided views: torch's own copies queries, keys and values apart."""

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended rows; ``attn_mask`` may be any that broadcasts to the scores."""
        mask = options.pop("attn_mask", None)
        if key is not value or options != {"need_weights": False} or query.ndim != 3:
            return super().forward(query, key, value, attn_mask=mask, **options)
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if query is key:
            q, k, v = self._heads(F.linear(query, weight, bias), 3)
        else:
            (q,) = self._heads(F.linear(query, weight[:width], bias[:width]), 1)
            k, v = self._heads(F.linear(key, weight[width:], bias[width:]), 2)
        found = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)
        return self.out_proj(found.reshape(query.shape)), None

    def _heads(self, rows: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Views ``(b, heads, n, width of a head)`` of projected rows ``(b, n, parts · width)``."""
        split = rows.view(*rows.shape[:2], parts, self.num_heads, self.head_dim)
        return split.permute(2, 0, 3, 1, 4).unbind()


def without_copies(model: nn.Module) -> None:
    """Let open_clip's plain blocks attend without copies; weights and their names stay."""
    from open_clip.transformer import ResidualAttentionBlock

    for block in model.modules():
        if type(block) is ResidualAttentionBlock:
            layer = block.attn
            if type(layer) is nn.MultiheadAttention and layer.batch_first and not layer.dropout:
                layer.__class__ = _Attention


def pooled(transformer: nn.Module, x: Tensor, at: Tensor | int, mask: Tensor | None) -> Tensor:
    """Return one row a sequence of a transformer's output, ``(b, width)``.

    In the last block the other rows are only attended to.

    Args:
        transformer: Transformer of an open_clip model.
        x: Rows that go into it, ``(b, n, width)``.
        at: Index of the row, for each sequence or for all.
        mask: Additive attention mask ``(n, n)``.
    """
    every = torch.arange(len(x), device=x.device) if isinstance(at, Tensor) else slice(None)
    blocks: Any = getattr(transformer, "resblocks", ())
    checkpointed = getattr(transformer, "grad_checkpointing", False)
    if checkpointed or not all(type(getattr(b, "attn", None)) is _Attention for b in blocks):
        return transformer(x, attn_mask=mask)[every, at]
    *first, last = blocks
    for block in first:
        x = block(x, attn_mask=mask)
    seen = last.ln_1(x)
    if mask is not None:
        mask = mask[at].to(x.dtype)[:, None, None]
    found, _ = last.attn(
        seen[every, at].unsqueeze(1), seen, seen, need_weights=False, attn_mask=mask
    )
    y = x[every, at] + last.ls_1(found.squeeze(1))
    return y + last.ls_2(last.mlp(last.ln_2(y)))
