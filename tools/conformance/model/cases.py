"""The families and options that the decoder is compared on, as plain data: name, model_type, config fields over SMALL."""

SMALL = dict(
    vocab_size=96, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip


def rope(rope_type, **fields):
    return dict(rope_parameters=dict(rope_type=rope_type, rope_theta=10000.0, **fields))


ROPES = dict(
    linear=rope("linear", factor=4.0),
    dynamic=rope("dynamic", factor=4.0),
    llama3=rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
    ),
    yarn=rope("yarn", factor=4.0, original_max_position_embeddings=16),
)
YARN_OPTIONS = rope(
    "yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=16.0, beta_slow=2.0, attention_factor=1.3
)
QWEN_WINDOW = dict(use_sliding_window=True, sliding_window=8, max_window_layers=1)
EXPERTS = dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=24)
MIXTRAL = dict(num_local_experts=4, num_experts_per_tok=2)
QWEN2_MOE = dict(**EXPERTS, shared_expert_intermediate_size=40)
GRANITE = dict(
    **MIXTRAL, attention_multiplier=0.21, embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=2.5
)

# transformers' dynamic RoPE wants Mixtral's head_dim to be said.
FAMILIES = dict(
    llama={}, mistral={}, qwen2={}, qwen3={}, mixtral=dict(**MIXTRAL, head_dim=8), qwen2_moe=QWEN2_MOE, qwen3_moe=dict(**EXPERTS, head_dim=16),
    granitemoe=GRANITE,
)  # fmt: skip

CASES = [
    *(
        (f"{family}-{name}", family, own | fields)
        for family, own in FAMILIES.items()
        for name, fields in [("default", {}), ("tied", dict(tie_word_embeddings=True)), *ROPES.items()]
    ),
    ("llama-biases", "llama", dict(attention_bias=True, mlp_bias=True)),
    ("llama-head-dim", "llama", dict(head_dim=20)),
    ("llama-one-kv-head", "llama", dict(num_key_value_heads=1)),
    ("llama-all-kv-heads", "llama", dict(num_key_value_heads=4)),
    ("llama-eps", "llama", dict(rms_norm_eps=0.1)),
    ("llama-yarn-options", "llama", YARN_OPTIONS),
    ("llama-gelu", "llama", dict(hidden_act="gelu")),
    ("llama-gelu-tanh", "llama", dict(hidden_act="gelu_pytorch_tanh")),
    ("llama-relu", "llama", dict(hidden_act="relu")),
    ("mistral-window", "mistral", dict(sliding_window=8)),
    ("mistral-no-window", "mistral", dict(sliding_window=None)),
    ("qwen2-window", "qwen2", QWEN_WINDOW),
    ("qwen3-window", "qwen3", dict(head_dim=16, **QWEN_WINDOW)),
    ("qwen3-biases", "qwen3", dict(attention_bias=True)),
    ("mixtral-no-head-dim", "mixtral", MIXTRAL),
    ("mixtral-top-1", "mixtral", dict(num_local_experts=3, num_experts_per_tok=1)),
    ("mixtral-window", "mixtral", dict(**MIXTRAL, sliding_window=8)),
    ("mixtral-head-dim", "mixtral", dict(**MIXTRAL, head_dim=20)),
    ("qwen2_moe-no-biases", "qwen2_moe", dict(**QWEN2_MOE, qkv_bias=False)),
    ("qwen2_moe-window", "qwen2_moe", dict(**QWEN2_MOE, **QWEN_WINDOW)),
    ("qwen2_moe-normalised", "qwen2_moe", dict(**QWEN2_MOE, norm_topk_prob=True)),
    ("qwen2_moe-dense-layers", "qwen2_moe", dict(**QWEN2_MOE, mlp_only_layers=[1])),
    ("qwen2_moe-sparse-step", "qwen2_moe", dict(**QWEN2_MOE, decoder_sparse_step=2)),
    ("qwen3_moe-biases", "qwen3_moe", dict(**EXPERTS, head_dim=16, attention_bias=True)),
    ("qwen3_moe-window", "qwen3_moe", dict(**EXPERTS, head_dim=16, use_sliding_window=True, sliding_window=8)),
    ("qwen3_moe-sparse-step", "qwen3_moe", dict(**EXPERTS, head_dim=16, decoder_sparse_step=2)),
    ("qwen3_moe-normalised", "qwen3_moe", dict(**EXPERTS, head_dim=16, norm_topk_prob=True)),
    ("qwen3_moe-dense-layers", "qwen3_moe", dict(**EXPERTS, head_dim=16, mlp_only_layers=[0, 2])),
    ("granitemoe-biases", "granitemoe", dict(**GRANITE, attention_bias=True)),
]

PROMPT_LENGTH = 40
LONG_LENGTH = 150
NEW_TOKENS = 12
