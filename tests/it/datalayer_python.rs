//! The data layer against the Python metrics library itself, in the three forms that model servers use it.

use std::time::Instant;

use pointsman::datalayer::{Settings, Variant};

use crate::datalayer::{Harness, Told};
use crate::support::{Exporter, Form};

/// Reads an exporter until `settled` was told, and then some pages more. Gives the form in use, the figures, and the
/// bytes of a page.
async fn read(form: Form, settled: Told) -> (&'static str, (u64, u64, f64), usize) {
    let exporter = Exporter::start(form, 7).await;
    let mut harness = Harness::start(Settings::default(), &[exporter.addr]);
    harness.until(|told| told.contains(&settled)).await;
    harness.pages("e0", 3).await;
    let status = harness.layer.statuses(Instant::now()).remove(0);
    let load = harness.load(0);
    let adopted = usize::from(settled != Told::Refused);
    assert_eq!(harness.layer.filtered_endpoints(), adopted);
    (status.form, (load.waiting(), load.running(), load.kv_usage()), status.bytes)
}

#[tokio::test]
async fn the_plain_server_filters_at_the_path_itself() {
    let (form, figures, bytes) = read(Form::Plain, Told::Adopted(Variant::Filtered)).await;
    assert_eq!((form, figures), ("filtered", (7, 1, 0.25)));
    assert!(bytes < 1000, "{bytes}");
}

#[tokio::test]
async fn the_instrumented_app_filters_behind_the_slash() {
    let (form, figures, bytes) = read(Form::Instrumented, Told::Adopted(Variant::FilteredSlash)).await;
    assert_eq!((form, figures), ("filtered-slash", (7, 1, 0.25)));
    assert!(bytes < 1000, "{bytes}");
}

#[tokio::test]
async fn the_multi_process_registry_has_only_the_full_page() {
    let (form, figures, bytes) = read(Form::Multiprocess, Told::Refused).await;
    assert_eq!((form, figures), ("full", (7, 1, 0.25)));
    assert!(bytes > 1000, "{bytes}");
}
