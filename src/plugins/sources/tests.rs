//! Sources of pages: what they ask for without parameters, and with those that templates leave empty.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    DCGM_DATA_SOURCE, ENDPOINT_NOTIFICATION_SOURCE, MODELS_DATA_SOURCE, MULTICLUSTER_METRICS_DATA_SOURCE,
};
use crate::datalayer::PageSource;
use crate::plugins::PluginType;
use crate::plugins::fixture::Fleet;

fn source(plugin: &PluginType, params: Value) -> PageSource {
    Fleet::new([]).build(plugin, Some(params)).unwrap().roles.page_source.unwrap()
}

#[test]
fn sources_of_pages_have_the_defaults_of_their_type() {
    let empty = json!({"scheme": "", "path": "", "interval": "", "caCertPath": ""});
    for (plugin, https, path, port, skips) in [
        (&DCGM_DATA_SOURCE, false, "/metrics", Some(9400), true),
        (&MODELS_DATA_SOURCE, false, "/v1/models", None, true),
        (&MULTICLUSTER_METRICS_DATA_SOURCE, true, "/metrics", None, false),
    ] {
        for params in [Value::Null, json!({}), empty.clone()] {
            let PageSource { source, at_node, kind, .. } = source(plugin, params.clone());
            assert_eq!(
                (source.https, &*source.path, source.port, source.insecure_skip_verify, at_node, kind),
                (https, path, port, skips, false, plugin.name),
                "{params}"
            );
        }
        let asked = source(plugin, json!({"SCHEME": "http", "path": "/p", "interval": "250ms"}));
        assert_eq!((asked.source.https, &*asked.source.path), (false, "/p"));
        assert_eq!(asked.source.interval, Some(Duration::from_millis(250)));
        for wrong in [json!({"scheme": "ftp"}), json!({"interval": "soon"}), json!({"other": 1})] {
            assert!(Fleet::new([]).build(plugin, Some(wrong.clone())).is_err(), "{}: {wrong}", plugin.name);
        }
    }
    let at_node = source(&DCGM_DATA_SOURCE, json!({"useNodeAddress": true, "port": 9500}));
    assert_eq!((at_node.at_node, at_node.source.port), (true, Some(9500)));
}

#[test]
fn a_source_of_endpoints_tells_of_them_and_takes_no_parameters() {
    let built = Fleet::new([]).build(&ENDPOINT_NOTIFICATION_SOURCE, None).unwrap();
    assert!(built.roles.notifies && built.warnings.is_empty());
    let warned = Fleet::new([]).build(&ENDPOINT_NOTIFICATION_SOURCE, Some(json!({"any": 1}))).unwrap();
    assert_eq!(warned.warnings.len(), 1, "{:?}", warned.warnings);
}
