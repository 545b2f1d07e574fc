"""The families and shapes that conformance tries, as plain data."""

SMALL = dict(
    vocab_size=96, hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.1, tie_word_embeddings=False,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip

WINDOW_EVERYWHERE = dict(use_sliding_window=True, sliding_window=8, max_window_layers=0)
YARN_ROPE = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
LLAMA3_ROPE = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)


def case(name, model_type, target, dtype="bfloat16", post=None, writer="v4", post_writer=None, parts=1, dense=(),
         shared=False, **config):  # fmt: skip
    """One trio. `target` is what the dense family becomes; `post` holds config fields in which the post-trained
    model differs; the writers are the transformers majors that save the dense checkpoints. Each expert is cut into
    `parts`, layers `dense` are kept, and `shared` makes the dense block a shared expert besides."""
    return dict(
        name=name, model_type=model_type, target=target, dtype=dtype, config={**SMALL, **config},
        post=post or {}, writers=(writer, post_writer or writer), parts=parts, dense=dense, shared=shared,
    )  # fmt: skip


CASES = [
    case("llama", "llama", "mixtral"),
    case("llama-tied", "llama", "mixtral", tie_word_embeddings=True),
    case("llama-untied-post", "llama", "mixtral", tie_word_embeddings=True, post=dict(tie_word_embeddings=False)),
    case("llama-mha-f32", "llama", "mixtral", dtype="float32", num_key_value_heads=4),
    case("llama-head-dim", "llama", "mixtral", head_dim=32, rope_theta=500000.0),
    case("llama-rope-llama3", "llama", "mixtral", rope_theta=500000.0, rope_scaling=LLAMA3_ROPE),
    case("llama-rope-yarn", "llama", "mixtral", rope_theta=50000.0, rope_scaling=YARN_ROPE),
    case("llama-f16", "llama", "mixtral", dtype="float16"),
    case("llama-written-by-v5", "llama", "mixtral", writer="v5", rope_theta=70000.0),
    case("llama-post-by-v5", "llama", "mixtral", post_writer="v5", rope_theta=70000.0),
    case("mistral-window", "mistral", "mixtral", sliding_window=8),
    case("mistral-written-by-v5", "mistral", "mixtral", writer="v5", sliding_window=8, rope_theta=70000.0, head_dim=32),
    case("mistral-no-window", "mistral", "mixtral", sliding_window=None),
    case("llama-qwen2moe", "llama", "qwen2_moe"),
    case("qwen2", "qwen2", "qwen2_moe"),
    case("qwen2-tied", "qwen2", "qwen2_moe", tie_word_embeddings=True),
    case("qwen2-window", "qwen2", "qwen2_moe", **WINDOW_EVERYWHERE),
    case("qwen2-written-by-v5", "qwen2", "qwen2_moe", writer="v5", tie_word_embeddings=True, rope_theta=70000.0),
    case("qwen3", "qwen3", "qwen3_moe", head_dim=16),
    case("qwen3-tied-head-dim", "qwen3", "qwen3_moe", head_dim=32, tie_word_embeddings=True, rope_theta=1000000.0),
    case("qwen3-window", "qwen3", "qwen3_moe", head_dim=16, **WINDOW_EVERYWHERE),
    case("qwen3-written-by-v5", "qwen3", "qwen3_moe", writer="v5", head_dim=32, rope_theta=70000.0),
    case("granite", "llama", "granitemoe"),
    case("granite-from-qwen2", "qwen2", "granitemoe"),
    case("granite-from-mistral-f32", "mistral", "granitemoe", dtype="float32", sliding_window=None),
    case("granite-tied", "llama", "granitemoe", tie_word_embeddings=True, rope_theta=500000.0, rope_scaling=LLAMA3_ROPE),
    case("granite-parts", "llama", "granitemoe", parts=4),
    case("parts-llama", "llama", "mixtral", parts=2),
    case("parts-qwen2", "qwen2", "qwen2_moe", parts=2),
    case("parts-qwen3", "qwen3", "qwen3_moe", parts=4, head_dim=32),
    case("dense-llama", "llama", "qwen2_moe", dense=(0,)),
    case("dense-qwen2", "qwen2", "qwen2_moe", dense=(0, 2), num_hidden_layers=4),
    case("dense-qwen3", "qwen3", "qwen3_moe", dense=(1,), head_dim=16),
    case("shared-llama", "llama", "qwen2_moe", shared=True),
    case("shared-qwen2", "qwen2", "qwen2_moe", shared=True),
    case("shared-parts-dense", "qwen2", "qwen2_moe", shared=True, parts=2, dense=(1,), num_hidden_layers=3),
]

# Dense models that no mixture holds: for depth expansion alone.
DENSE_CASES = [
    case("depth-mixed-window", "qwen2", None, num_hidden_layers=4, use_sliding_window=True, sliding_window=8, max_window_layers=2),
]

EXPERTS, TOP_K = 3, 2
