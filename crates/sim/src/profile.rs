//! Measured engines: their step times and sizes as plain numbers.

/// A kind of model server: its speed and its sizes.
///
/// The step times are medians of the measurements that the simulator of Splitwise publishes (`data/perf_model.csv` of
/// `Mutinifni/splitwise-sim`, MIT): `prompt_time` by prompt tokens times batch size, `token_time` by batch size at
/// prompts of 512 tokens. Beyond the measured range the last two points are continued as a line. Longer contexts do not
/// slow decoding down here; in the measurements they do by at most a few percent up to 8192 tokens.
///
/// The blocks are what remains of 90 % of the GPU memory after the weights in 16 bits, at the size of a token in the
/// KV cache of the model in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineProfile {
    /// The name on the command line.
    pub name: &'static str,
    /// A description of the model, the hardware and the parallelism.
    pub about: &'static str,
    /// Pairs of the prompt tokens in a step and the milliseconds that the step takes.
    pub prefill: &'static [(f64, f64)],
    /// Pairs of the decoding requests in a step and the milliseconds that the step takes.
    pub decode: &'static [(f64, f64)],
    /// The tokens in a KV-cache block.
    pub block_size: usize,
    /// The number of KV-cache blocks.
    pub blocks: usize,
    /// The most requests in one batch.
    pub max_running: usize,
    /// The most tokens in one step.
    pub max_step_tokens: usize,
}

impl EngineProfile {
    /// All profiles, with the default first.
    pub const ALL: [&'static Self; 5] = [&H100_70B, &H100_70B_TP8, &A100_70B, &A100_70B_TP8, &SMALL];

    /// The profile with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }
}

const H100_70B: EngineProfile = EngineProfile {
    name: "h100-70b",
    about: "Llama 2 70B on four H100 of 80 GB",
    prefill: &[
        (128.0, 49.1),
        (256.0, 51.0),
        (512.0, 59.7),
        (1024.0, 104.6),
        (2048.0, 200.5),
        (4096.0, 456.7),
        (8192.0, 925.0),
        (16_384.0, 1726.1),
    ],
    decode: &[(1.0, 29.4), (8.0, 31.4), (16.0, 32.8), (32.0, 36.9), (64.0, 52.4)],
    block_size: 16,
    blocks: 28_200,
    max_running: 256,
    max_step_tokens: 8192,
};

const H100_70B_TP8: EngineProfile = EngineProfile {
    name: "h100-70b-tp8",
    about: "Llama 2 70B on eight H100 of 80 GB",
    prefill: &[
        (128.0, 51.7),
        (512.0, 53.9),
        (1024.0, 77.7),
        (2048.0, 134.4),
        (4096.0, 376.2),
        (8192.0, 831.5),
        (16_384.0, 1551.7),
    ],
    decode: &[(1.0, 30.6), (8.0, 32.5), (16.0, 34.2), (32.0, 38.6), (64.0, 50.2)],
    block_size: 16,
    blocks: 83_000,
    max_running: 256,
    max_step_tokens: 8192,
};

const A100_70B: EngineProfile = EngineProfile {
    name: "a100-70b",
    about: "Llama 2 70B on four A100 of 80 GB",
    prefill: &[
        (128.0, 63.7),
        (256.0, 78.6),
        (512.0, 127.0),
        (1024.0, 247.4),
        (2048.0, 427.4),
        (4096.0, 1069.1),
        (8192.0, 2620.1),
        (16_384.0, 5131.7),
    ],
    decode: &[(1.0, 44.5), (8.0, 45.8), (16.0, 48.5), (32.0, 52.4), (64.0, 73.0)],
    block_size: 16,
    blocks: 28_200,
    max_running: 256,
    max_step_tokens: 2048,
};

const A100_70B_TP8: EngineProfile = EngineProfile {
    name: "a100-70b-tp8",
    about: "Llama 2 70B on eight A100 of 80 GB",
    prefill: &[
        (128.0, 65.4),
        (256.0, 66.8),
        (512.0, 93.0),
        (1024.0, 160.9),
        (2048.0, 282.7),
        (4096.0, 708.4),
        (8192.0, 1781.0),
        (16_384.0, 3524.5),
    ],
    decode: &[(1.0, 45.0), (8.0, 46.5), (16.0, 50.4), (32.0, 53.0), (64.0, 71.6)],
    block_size: 16,
    blocks: 83_000,
    max_running: 256,
    max_step_tokens: 2048,
};

/// The servers of the demo, which were not measured.
const SMALL: EngineProfile = EngineProfile {
    name: "demo",
    about: "the small servers of the demo, which nobody measured",
    prefill: &[(1.0, 0.1), (2.0, 0.2)],
    decode: &[(1.0, 10.0)],
    block_size: 16,
    blocks: 1200,
    max_running: 16,
    max_step_tokens: 8192,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_name_and_its_tables_ascend() {
        for profile in EngineProfile::ALL {
            assert_eq!(EngineProfile::named(profile.name), Some(profile));
            for table in [profile.prefill, profile.decode] {
                assert!(table.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{}", profile.name);
            }
        }
        assert_eq!(EngineProfile::named("h100"), None);
    }
}
