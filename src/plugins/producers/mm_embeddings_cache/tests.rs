use serde_json::json;

use super::*;
use crate::plugins::fixture::{Fleet, Request, pod, request};

fn images(urls: &[&str]) -> Request {
    urls.iter().fold(request("m"), |request, url| request.media(MediaKind::Image, url))
}

fn matched(fleet: &Fleet, roles: &Roles, request: &Request) -> Vec<(u32, u32)> {
    let columns = fleet.produce(roles, request);
    let cells = columns.slice(fleet.column::<MediaMatch>(TYPE.name)).unwrap_or_default();
    cells.iter().map(|cell| (cell.matched, cell.requested)).collect()
}

#[test]
fn items_are_held_where_they_were_sent() {
    let mut fleet = Fleet::new([pod("a"), pod("b"), pod("c")]);
    let built = fleet.build(&TYPE, None).unwrap();
    let roles = &built.roles;
    let two = images(&["https://x/1.png", "https://x/2.png", "https://x/1.png"]);
    assert_eq!(matched(&fleet, roles, &two), [(0, 2); 3]);
    let columns = fleet.produce(roles, &two);
    // Decode on a, prefill on b, encode on c: what encodes holds the embeddings, and so may what decodes.
    fleet.forward(roles, &two, &columns, &[Some(0), Some(1), Some(2)]);
    assert_eq!(matched(&fleet, roles, &two), [(2, 2), (0, 2), (2, 2)]);
    assert_eq!(
        matched(&fleet, roles, &images(&["https://x/2.png", "https://x/3.png"])),
        [(1, 2), (0, 2), (1, 2)]
    );
    // Text alone produces nothing, and is remembered nowhere.
    assert_eq!(matched(&fleet, roles, &request("m").prompt("https://x/1.png")), []);
    assert_eq!(matched(&fleet, roles, &request("m")), []);
    let page = fleet.page();
    for line in [
        "llm_d_epp_encoder_cache_queries_total{modality=\"image\",plugin_name=\"mm-embeddings-cache-producer\",plugin_type=\"mm-embeddings-cache-producer\"} 8",
        "llm_d_epp_encoder_cache_hits_total{modality=\"image\",plugin_name=\"mm-embeddings-cache-producer\",plugin_type=\"mm-embeddings-cache-producer\",pod=\"a\"} 3",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is missing in {page}");
    }
}

#[test]
fn an_endpoint_forgets_its_oldest_items_beyond_its_capacity() {
    let mut fleet = Fleet::new([pod("a")]);
    let built = fleet.build(&TYPE, Some(json!({"cacheSizeInMBPerServer": 4}))).unwrap();
    for url in ["u1", "u2", "u1", "u3"] {
        let request = images(&[url]);
        let columns = fleet.produce(&built.roles, &request);
        fleet.forward(&built.roles, &request, &columns, &[Some(0)]);
    }
    for (url, held) in [("u1", 1), ("u2", 0), ("u3", 1)] {
        assert_eq!(matched(&fleet, &built.roles, &images(&[url])), [(held, 1)], "{url}");
    }
}

#[test]
fn an_endpoint_that_comes_back_holds_nothing() {
    let mut fleet = Fleet::new([pod("a"), pod("b")]);
    let built = fleet.build(&TYPE, Some(json!({"cacheSizeInMBPerServer": -1}))).unwrap();
    let one = images(&["u"]);
    let columns = fleet.produce(&built.roles, &one);
    fleet.forward(&built.roles, &one, &columns, &[Some(0)]);
    let specs: Vec<_> = fleet.snapshot().endpoints().iter().map(|endpoint| endpoint.spec().clone()).collect();
    fleet.pool.replace_endpoints(vec![specs[1].clone()]);
    fleet.pool.replace_endpoints(specs);
    assert_eq!(matched(&fleet, &built.roles, &one), [(0, 1), (0, 1)]);
}

#[test]
fn a_request_of_any_number_of_items_costs_a_bounded_number_of_probes() {
    let mut fleet = Fleet::new([pod("a")]);
    let built = fleet.build(&TYPE, None).unwrap();
    let urls: Vec<String> = (0..1000).map(|number| format!("u{number}")).collect();
    let many = images(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(matched(&fleet, &built.roles, &many), [(0, MAX_REQUEST_ITEMS as u32)]);
}
