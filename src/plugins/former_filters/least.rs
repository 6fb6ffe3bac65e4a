//! `least-queue-filter` and `least-kv-cache-filter`, see the folder. Figures are those of the last scrape, however old;
//! an endpoint that was never scraped has an empty queue and cache.

use std::sync::Arc;

use crate::plugins::{PluginType, Roles, Stability};
use crate::pool::Load;
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static QUEUE: PluginType = PluginType::new("least-queue-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(Least { figure: |load| load.waiting() as f64 })))
})
.superseded_by("queue-scorer", "v1.0.0 of the inference extension")
.about(
    "Keeps the endpoints whose queues are in the lowest part of the range.",
    "Use queue-scorer instead, which weighs queues against other figures. It costs two passes over the candidates.",
);

/// Registry row.
pub static KV_CACHE: PluginType = PluginType::new("least-kv-cache-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(Least { figure: Load::kv_usage })))
})
.superseded_by("kv-cache-utilization-scorer", "v1.0.0 of the inference extension")
.about(
    "Keeps the endpoints whose cache usage is in the lowest part of the range.",
    "Use kv-cache-utilization-scorer instead, which weighs it against other figures. It costs two passes over the \
     candidates.",
);

#[derive(Debug)]
struct Least {
    figure: fn(&Load) -> f64,
}

impl Filter for Least {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        // Read once: a scrape may change a figure meanwhile.
        let figures: Vec<f64> = call.endpoints().map(|endpoint| (self.figure)(endpoint.load())).collect();
        let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
        let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let bound = least + (most - least) / figures.len() as f64;
        keep.retain(figures, |figure| figure <= bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};

    fn kept(plugin: &PluginType, pods: impl IntoIterator<Item = Pod>) -> String {
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(plugin, None).unwrap();
        fleet.kept(&built.roles, &request("m")).concat()
    }

    #[test]
    fn the_lowest_part_of_the_range_stays() {
        let queues = |figures: [u64; 4]| {
            ["a", "b", "c", "d"].into_iter().zip(figures).map(|(name, figure)| pod(name).waiting(figure))
        };
        // 0 + 20 / 4 = 5.
        assert_eq!(kept(&QUEUE, queues([0, 5, 6, 20])), "ab");
        assert_eq!(kept(&QUEUE, queues([3, 3, 3, 3])), "abcd");
        assert_eq!(kept(&QUEUE, [pod("a").waiting(1), pod("b")]), "b");
        assert_eq!(kept(&KV_CACHE, [pod("a").kv(0.1), pod("b").kv(0.5), pod("c").kv(0.9)]), "a");
        assert_eq!(kept(&KV_CACHE, [pod("a").kv(f64::NAN), pod("b").kv(0.5)]), "a");
        assert_eq!(kept(&KV_CACHE, []), "");
    }
}
