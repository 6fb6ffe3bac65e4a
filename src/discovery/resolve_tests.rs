//! Names against a resolver that is played.

use super::*;

/// The addresses of names. Looking up a name that is not there fails.
type Table = Arc<Mutex<HashMap<String, Vec<&'static str>>>>;

fn resolver(table: &Table) -> Resolver {
    let table = Arc::clone(table);
    Resolver::new(move |name| {
        let found = table.lock().get(name).cloned().ok_or_else(|| io::Error::other("no such name"))?;
        Ok(found.iter().map(|address| address.parse().unwrap()).collect())
    })
}

/// Entries with host names: name and host.
fn entries(rows: &[(&str, &str)]) -> (Vec<EndpointSpec>, Hosts) {
    let spec = |name: &str| {
        let mut spec = EndpointSpec::new(EndpointId::new("ns", name), "0.0.0.0:8000".parse().unwrap());
        spec.metrics_address.set_port(9000);
        spec
    };
    let specs = rows.iter().map(|(name, _)| spec(name)).collect();
    let serving = rows.iter().enumerate().map(|(at, (_, host))| (at, Arc::from(*host))).collect();
    (specs, Hosts { serving, ..Hosts::default() })
}

async fn look(resolver: &mut Resolver, rows: &[(&str, &str)]) -> Vec<String> {
    let (specs, hosts) = entries(rows);
    resolver.refresh(hosts.names()).await;
    let all = resolver.resolved(&specs, &hosts);
    assert!(all.iter().all(|spec| spec.metrics_address.port() == 9000 && spec.metrics_address.ip() == spec.address.ip()));
    all.iter().map(|spec| format!("{}={}", spec.id.name(), spec.address)).collect()
}

#[tokio::test]
async fn each_address_of_a_name_is_an_endpoint_and_one_that_stays_keeps_its_name() {
    let table = Table::default();
    let set = |addresses: &[&'static str]| drop(table.lock().insert("h".to_owned(), addresses.to_vec()));
    let mut resolver = resolver(&table);
    set(&["10.0.0.2"]);
    assert_eq!(look(&mut resolver, &[("a", "h")]).await, ["a=10.0.0.2:8000"]);
    set(&["10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.1"]);
    let three = ["a=10.0.0.2:8000", "a-1=10.0.0.1:8000", "a-2=10.0.0.3:8000"];
    assert_eq!(look(&mut resolver, &[("a", "h")]).await, three);
    set(&["10.0.0.3"]);
    assert_eq!(look(&mut resolver, &[("a", "h")]).await, [three[2]]);
    set(&["10.0.0.3", "10.0.0.9"]);
    assert_eq!(look(&mut resolver, &[("a", "h")]).await, ["a=10.0.0.9:8000", three[2]]);
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_keeps_its_last_addresses() {
    let table = Table::default();
    table.lock().insert("h".to_owned(), vec!["10.0.0.1", "10.0.0.2"]);
    let mut resolver = resolver(&table);
    let two = look(&mut resolver, &[("a", "h"), ("b", "nowhere")]).await;
    assert_eq!(two, ["a=10.0.0.1:8000", "a-1=10.0.0.2:8000"]);
    for broken in [None, Some(vec![])] {
        table.lock().remove("h");
        table.lock().extend(broken.map(|none| ("h".to_owned(), none)));
        assert_eq!(look(&mut resolver, &[("a", "h")]).await, two);
    }
    table.lock().insert("h".to_owned(), vec!["10.0.0.2"]);
    assert_eq!(look(&mut resolver, &[("a", "h")]).await, [two[1].as_str()]);
    assert_eq!(look(&mut resolver, &[]).await, [""; 0]);
    assert!(resolver.known.is_empty(), "a name that is not asked for any more is forgotten");
}

#[tokio::test]
async fn a_name_with_addresses_of_both_families_is_asked_for_by_those_of_ipv4() {
    let table = Table::default();
    table.lock().insert("both".to_owned(), vec!["::1", "127.0.0.1"]);
    table.lock().insert("six".to_owned(), vec!["fd00::1"]);
    let found = look(&mut resolver(&table), &[("a", "both"), ("b", "six")]).await;
    assert_eq!(found, ["a=127.0.0.1:8000", "b=[fd00::1]:8000"]);
}

#[tokio::test]
async fn the_number_behind_a_name_gives_way_to_another_entry() {
    let table = Table::default();
    table.lock().insert("h".to_owned(), vec!["10.0.0.1", "10.0.0.2"]);
    table.lock().insert("i".to_owned(), vec!["10.0.0.7"]);
    let found = look(&mut resolver(&table), &[("a", "h"), ("a-1", "i")]).await;
    assert_eq!(found, ["a=10.0.0.1:8000", "a-1x=10.0.0.2:8000", "a-1=10.0.0.7:8000"]);
}

#[tokio::test]
async fn addresses_of_a_name_are_bounded() {
    let mut resolver = Resolver::new(|_| {
        Ok((0..10_000).map(|n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect())
    });
    assert_eq!(look(&mut resolver, &[("a", "h")]).await.len(), ADDRESSES);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_hangs_is_not_waited_for_without_end_and_not_begun_twice() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let mut resolver = Resolver::new(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        _ = gate.lock().recv();
        Err(io::Error::other("gone"))
    });
    // Time does not pass by itself while a blocking call is under way.
    let begun = Arc::clone(&calls);
    let pass = tokio::spawn(async move {
        while begun.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        loop {
            tokio::time::advance(Duration::from_millis(500)).await;
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        assert_eq!(look(&mut resolver, &[("a", "h")]).await, [""; 0]);
    }
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 1);
    pass.abort();
    drop(open);
}

#[tokio::test]
async fn a_cluster_is_scraped_at_its_own_name_wherever_it_serves() {
    let table = Table::default();
    table.lock().insert("east".to_owned(), vec!["10.0.0.1", "10.0.0.2"]);
    let mut resolver = resolver(&table);
    let (specs, mut hosts) = entries(&[("a", "east"), ("b", "east"), ("c", "east")]);
    hosts.serving.remove(&1);
    hosts.scraped.insert(0, At::Host("metrics.east".into()));
    hosts.scraped.insert(1, At::Address("10.9.9.9".parse().unwrap()));
    let scraped = |all: &[EndpointSpec]| -> Vec<String> {
        all.iter().map(|spec| format!("{}={}", spec.id.name(), spec.metrics_address)).collect()
    };
    // A name that is not known leads nowhere, and not to the server itself.
    resolver.refresh(hosts.names()).await;
    let nowhere = scraped(&resolver.resolved(&specs, &hosts));
    assert_eq!(nowhere[..3], ["a=[100::]:9000", "a-1=[100::]:9000", "b=10.9.9.9:9000"]);
    table.lock().insert("metrics.east".to_owned(), vec!["10.7.7.7"]);
    resolver.refresh(hosts.names()).await;
    let known = scraped(&resolver.resolved(&specs, &hosts));
    let expected =
        ["a=10.7.7.7:9000", "a-1=10.7.7.7:9000", "b=10.9.9.9:9000", "c=10.0.0.1:9000", "c-1=10.0.0.2:9000"];
    assert_eq!(known, expected);
}
