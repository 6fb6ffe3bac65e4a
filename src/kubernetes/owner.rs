//! Finds the Deployment or StatefulSet that a pod belongs to, by the pod's name.

/// Name of what a pod belongs to: of its Deployment, without the hashes of replica set and pod; of a StatefulSet,
/// without the ordinal; else its own.
pub fn owner_of(pod: &str) -> &str {
    // Kubernetes makes hashes of these characters, so that they form no words.
    let hash = |part: &str| part.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte));
    let mut parts = pod.rsplitn(3, '-');
    if let (Some(of_pod), Some(of_set), Some(name)) = (parts.next(), parts.next(), parts.next())
        && of_pod.len() == 5
        && hash(of_pod)
        && (1..=10).contains(&of_set.len())
        && hash(of_set)
        && !name.is_empty()
    {
        return name;
    }
    match pod.rsplit_once('-') {
        Some((name, ordinal))
            if !name.is_empty()
                && !ordinal.is_empty()
                && ordinal.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            name
        }
        _ => pod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_of_a_selector_is_named_after_what_the_pod_belongs_to() {
        assert_eq!(owner_of("my-epp-7d9f8c6b5-x2x4z"), "my-epp");
        assert_eq!(owner_of("vllm-a-0"), "vllm-a", "so that replicas share a lease and pools do not");
        assert_eq!(owner_of("epp-12"), "epp");
        assert_eq!(owner_of("epp"), "epp");
        assert_eq!(owner_of("my-own-epp"), "my-own-epp");
    }
}
