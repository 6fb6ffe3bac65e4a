//! Spans of requests that several servers share.

use super::{Any, Bench, TRACE, hex, named, parent, question, spans};

#[tokio::test(flavor = "multi_thread")]
async fn the_choice_of_a_prefill_server_shows_in_the_trace() {
    let split = |config: &str| {
        let handler = "- type: always-disagg-pd-decider\n- type: prefill-filter\n- type: disagg-profile-handler\n  \
                       parameters: {deciders: {prefill: always-disagg-pd-decider}}";
        let profiles = "- name: prefill\n  plugins: [{pluginRef: prefill-filter}]\n- name: decode";
        config.replace("- type: single-profile-handler", handler).replace("- name: default", profiles)
    };
    let mut bench = Bench::start_with(split, &["--secure-serving=false"]).await;
    let traceparent = parent("01");
    bench.ask(&[("traceparent", traceparent.as_str()), ("x-request-id", "req-1")], &question()).await;
    let recorder = bench.recorder.addr;
    let spans = spans(&bench.collected().await);
    let orchestration = named(&spans, "gateway.request_orchestration");
    let mut decided = Vec::new();
    for span in spans.iter().filter(|span| span.name == "pick_disagg_profile") {
        assert_eq!((hex(&span.trace), &span.parent), (TRACE.to_owned(), &orchestration.id));
        assert_eq!(span.attribute("llm_d.epp.profile_handler.decode_failed"), &Any::Flag(false));
        decided.push(span.attribute("llm_d.epp.profile_handler.decision").clone());
    }
    let expected = ["run_decode", "run_prefill", "complete_prefill-decode"].map(Any::from);
    assert!(decided.len() == 3 && expected.iter().all(|word| decided.contains(word)), "{decided:?}");
    let prepared = named(&spans, "prepare_disaggregation");
    assert_eq!(prepared.parent, orchestration.id);
    for (key, value) in [
        ("gen_ai.request.id", Any::from("req-1")),
        ("llm_d.epp.pd.disaggregation_used", Any::Flag(true)),
        ("llm_d.epp.pd.prefill_pod_address", Any::from(recorder.ip().to_string().as_str())),
        ("llm_d.epp.pd.prefill_pod_port", Any::from(recorder.port().to_string().as_str())),
        ("llm_d.epp.encode.disaggregation_used", Any::Flag(false)),
    ] {
        assert_eq!(prepared.attribute(key), &value, "{key}");
    }
}
