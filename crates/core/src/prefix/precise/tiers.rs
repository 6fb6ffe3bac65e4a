//! Where an engine keeps a block, and what that is worth.

/// Where an engine keeps a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The accelerator's memory (`gpu`).
    #[default]
    Gpu,
    /// The machine's memory (`cpu`).
    Cpu,
    /// Any other place.
    Other,
}

impl Tier {
    /// The tier of this name, whatever its case; none is the accelerator's.
    pub fn named(name: &str) -> Self {
        match name {
            "" => Self::Gpu,
            name if name.eq_ignore_ascii_case("gpu") => Self::Gpu,
            name if name.eq_ignore_ascii_case("cpu") => Self::Cpu,
            _ => Self::Other,
        }
    }
}

/// Places that the index tells apart: the three tiers, and what was sent and should be stored soon.
pub(super) const PLACES: usize = 4;
/// The place of blocks that were sent and are not confirmed yet.
pub(super) const SENT: usize = 3;

/// What a block counts, by the tier that holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierWeights {
    /// In [`Tier::Gpu`].
    pub gpu: f64,
    /// In [`Tier::Cpu`].
    pub cpu: f64,
    /// In [`Tier::Other`].
    pub other: f64,
}

impl Default for TierWeights {
    fn default() -> Self {
        Self { gpu: 1.0, cpu: 0.8, other: 1.0 }
    }
}

impl TierWeights {
    /// By place; what was sent counts whole.
    pub(super) fn by_place(self) -> [f64; PLACES] {
        [self.gpu, self.cpu, self.other, 1.0]
    }
}
