//! The labels of `vllm:cache_config_info`. There are many. The names of some end in `block_size` although they are not
//! the block size, and absent values are the text `None`.

/// All labels, in the order of the page, which sorts them by name.
pub(super) fn labels(engine: usize, block_size: usize, blocks: usize) -> Vec<(&'static str, String)> {
    const NONE: &str = "None";
    let size_tokens = block_size.saturating_mul(blocks);
    let pairs: [(&'static str, &str); 31] = [
        ("_block_size_resolved", "True"),
        ("cache_dtype", "auto"),
        ("cache_hit_alignment_tokens", NONE),
        ("enable_mamba_shared_prefix_checkpoint", "False"),
        ("enable_prefix_caching", "True"),
        ("gpu_memory_utilization", "0.92"),
        ("hash_block_size", NONE),
        ("is_attention_free", "False"),
        ("kv_cache_dtype_skip_layers", "[]"),
        ("kv_cache_layout", NONE),
        ("kv_cache_memory_bytes", "1073741824"),
        ("kv_offloading_backend", "native"),
        ("kv_offloading_size", NONE),
        ("kv_sharing_fast_prefill", "False"),
        ("mamba_block_size", NONE),
        ("mamba_cache_dtype", "auto"),
        ("mamba_cache_mode", "none"),
        ("mamba_page_size_padded", NONE),
        ("mamba_ssm_cache_dtype", "float32"),
        ("num_cpu_blocks", NONE),
        ("num_gpu_blocks_override", NONE),
        ("prefix_cache_retention_interval", "0"),
        ("prefix_caching_hash_algo", "sha256"),
        ("prefix_match_unit", NONE),
        ("replayssm_buffer_len", "16"),
        ("skip_page_size_padded", NONE),
        ("sliding_window", NONE),
        ("swa_bounded_replay", "True"),
        ("use_kda_recoverssm", "False"),
        ("use_replayssm", "False"),
        ("user_specified_block_size", "True"),
    ];
    let mut labels: Vec<(&'static str, String)> =
        pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    labels.push(("block_size", block_size.to_string()));
    labels.push(("effective_attention_block_size", block_size.to_string()));
    labels.push(("engine", engine.to_string()));
    labels.push(("kv_cache_max_concurrency", format!("{:?}", (size_tokens as f64 / 4096.0).max(1.0))));
    labels.push(("kv_cache_size_tokens", size_tokens.to_string()));
    labels.push(("num_gpu_blocks", blocks.to_string()));
    labels.sort_unstable_by_key(|(name, _)| *name);
    labels
}
