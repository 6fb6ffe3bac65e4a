//! Reading the metrics page of the library that real model servers use, whole and filtered.

use crate::support::{EndpointsFile, Exporter, Form, Pointsman, SCORERS, config, eventually, holds};

/// Reads an exporter of this form; gives the picker and the bytes of one page when nothing is in the making any more.
async fn reads(form: Form, filtered: f64, flags: &[&str]) -> f64 {
    let exporter = Exporter::start(form, 7).await;
    let endpoints = EndpointsFile::with([("exporter", exporter.addr)]);
    let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), flags).await;
    holds("the queue is read", async || {
        let labels = [("model_server_endpoint", "exporter")];
        pointsman.metric("llm_d_epp_per_endpoint_queue_size", &labels).await == Some(7.0)
    })
    .await;
    holds("the kind of page is settled", async || {
        let settled = flags.contains(&"--filtered-scrapes=false")
            || pointsman.metric("pointsman_scrape_filter_probes_total", &[]).await.unwrap_or(0.0) > 0.0;
        settled && pointsman.metric("pointsman_scrape_filtered_endpoints", &[]).await == Some(filtered)
    })
    .await;
    // Three scrapes after it was settled, the sizes are those of the page that was chosen.
    let counts = async || {
        let scrapes = pointsman.metric("pointsman_scrape_duration_seconds_count", &[]).await.unwrap_or(0.0);
        (scrapes, pointsman.metric("pointsman_scrape_bytes_total", &[]).await.unwrap_or(0.0))
    };
    let (scrapes, bytes) = counts().await;
    eventually("some more pages were read", async || {
        let (later_scrapes, later_bytes) = counts().await;
        (later_scrapes >= scrapes + 5.0).then(|| (later_bytes - bytes) / (later_scrapes - scrapes))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_page_of_the_plain_server_is_adopted() {
    let bytes = reads(Form::Plain, 1.0, &[]).await;
    assert!(bytes < 2000.0, "{bytes} bytes a page");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_page_behind_a_slash_is_found_and_adopted() {
    let bytes = reads(Form::Instrumented, 1.0, &[]).await;
    assert!(bytes < 2000.0, "{bytes} bytes a page");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_filtered_page_is_refused_and_the_whole_one_read() {
    let bytes = reads(Form::Multiprocess, 0.0, &[]).await;
    assert!(bytes > 2000.0, "{bytes} bytes a page");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_turns_filtered_pages_off() {
    let bytes = reads(Form::Plain, 0.0, &["--filtered-scrapes=false"]).await;
    assert!(bytes > 2000.0, "{bytes} bytes a page");
}
