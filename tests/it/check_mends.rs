//! What `pointsman check` proposes mends the document: applied to it, the next check has nothing more to say.

use std::process::Command;

use crate::support::{Fleet, program};

/// Runs `check` on this text with further words; all that it says.
fn check(text: &str, further: &[&str]) -> String {
    let output =
        Command::new(program()).args(["check", "--config-text", text]).args(further).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// The lines of findings that a document has to be mended for, and of what mends them.
fn findings(said: &str) -> Vec<&str> {
    let told = |line: &&str| {
        let line = line.trim_start_matches("# ");
        line.starts_with("warning:")
            || line.trim_start().starts_with("mend: ")
            || line.contains("cannot be used")
    };
    said.lines().filter(told).collect()
}

/// A document with a fault, and what is right in its place.
struct Case {
    what: &'static str,
    broken: &'static str,
    /// What `mend:` says.
    proposal: &'static str,
    /// The same document with that applied.
    mended: &'static str,
}

const CASES: &[Case] = &[
    Case {
        what: "a profile without a picker",
        broken: "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n",
        proposal: "`- type: max-score-picker` in `plugins`, and `- pluginRef: max-score-picker` in the profile",
        mended: "plugins:\n- type: queue-scorer\n- type: max-score-picker\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n  - pluginRef: max-score-picker\n",
    },
    Case {
        what: "a picker in another profile alone",
        broken: "plugins:\n- type: random-picker\n- type: header-profile-handler\nschedulingProfiles:\n- name: decode\n  plugins:\n  - pluginRef: random-picker\n- name: prefill\n  plugins: []\n",
        proposal: "`- pluginRef: random-picker` in the profile",
        mended: "plugins:\n- type: random-picker\n- type: header-profile-handler\nschedulingProfiles:\n- name: decode\n  plugins:\n  - pluginRef: random-picker\n- name: prefill\n  plugins:\n  - pluginRef: random-picker\n",
    },
    Case {
        what: "a scorer whose data nobody produces",
        broken: "plugins:\n- type: prefix-cache-scorer\n  parameters: {prefixMatchInfoProducerName: mine}\n",
        proposal: "`- type: approx-prefix-cache-producer` with `name: mine` in `plugins`",
        mended: "plugins:\n- type: prefix-cache-scorer\n  parameters: {prefixMatchInfoProducerName: mine}\n- type: approx-prefix-cache-producer\n  name: mine\n",
    },
    Case {
        what: "a producer that nobody reads",
        broken: "plugins:\n- type: approx-prefix-cache-producer\n- type: queue-scorer\n",
        proposal: "no row for \"approx-prefix-cache-producer\"",
        mended: "plugins:\n- type: queue-scorer\n",
    },
    Case {
        what: "profiles without a handler",
        broken: "plugins:\n- type: random-picker\nschedulingProfiles:\n- name: decode\n  plugins: [{pluginRef: random-picker}]\n- name: b\n  plugins: [{pluginRef: random-picker}]\n",
        proposal: "`- type: disagg-profile-handler` in `plugins`",
        mended: "plugins:\n- type: random-picker\n- type: disagg-profile-handler\nschedulingProfiles:\n- name: decode\n  plugins: [{pluginRef: random-picker}]\n",
    },
    Case {
        what: "a profile that is no stage's",
        broken: "plugins:\n- type: random-picker\n- type: disagg-profile-handler\nschedulingProfiles:\n- name: decode\n  plugins: [{pluginRef: random-picker}]\n- name: other\n  plugins: [{pluginRef: random-picker}]\n",
        proposal: "no profile \"other\"",
        mended: "plugins:\n- type: random-picker\n- type: disagg-profile-handler\nschedulingProfiles:\n- name: decode\n  plugins: [{pluginRef: random-picker}]\n",
    },
    Case {
        what: "a stage that nobody decides for",
        broken: "plugins:\n- type: random-picker\n- type: disagg-profile-handler\nschedulingProfiles:\n- name: decode\n  plugins: [{pluginRef: random-picker}]\n- name: prefill\n  plugins: [{pluginRef: random-picker}]\n",
        proposal: "`- type: always-disagg-pd-decider` in `plugins`, and `deciders: {prefill: always-disagg-pd-decider}` among",
        mended: "plugins:\n- type: random-picker\n- type: disagg-profile-handler\n  parameters:\n    deciders: {prefill: always-disagg-pd-decider}\n- type: always-disagg-pd-decider\nschedulingProfiles:\n- name: decode\n  plugins: [{pluginRef: random-picker}]\n- name: prefill\n  plugins: [{pluginRef: random-picker}]\n",
    },
    Case {
        what: "the only profile under another name than decode",
        broken: "plugins:\n- type: random-picker\n- type: disagg-profile-handler\nschedulingProfiles:\n- name: all\n  plugins: [{pluginRef: random-picker}]\n",
        proposal: "`profiles: {decode: all}` among its parameters",
        mended: "plugins:\n- type: random-picker\n- type: disagg-profile-handler\n  parameters:\n    profiles: {decode: all}\nschedulingProfiles:\n- name: all\n  plugins: [{pluginRef: random-picker}]\n",
    },
    Case {
        what: "no profile for requests without the header",
        broken: "plugins:\n- type: random-picker\n- type: header-profile-handler\nschedulingProfiles:\n- name: a\n  plugins: [{pluginRef: random-picker}]\n- name: b\n  plugins: [{pluginRef: random-picker}]\n",
        proposal: "`defaultProfile: a` among its parameters",
        mended: "plugins:\n- type: random-picker\n- type: header-profile-handler\n  parameters:\n    defaultProfile: a\nschedulingProfiles:\n- name: a\n  plugins: [{pluginRef: random-picker}]\n- name: b\n  plugins: [{pluginRef: random-picker}]\n",
    },
    Case {
        what: "a scorer in no profile",
        broken: "plugins:\n- type: queue-scorer\n- type: load-aware-scorer\n- type: random-picker\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n  - pluginRef: random-picker\n",
        proposal: "`- pluginRef: load-aware-scorer` in a profile",
        mended: "plugins:\n- type: queue-scorer\n- type: load-aware-scorer\n- type: random-picker\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n  - pluginRef: random-picker\n  - pluginRef: load-aware-scorer\n",
    },
];

#[test]
fn a_document_with_what_is_proposed_has_nothing_more_to_be_mended() {
    let experimental = ["--allow-experimental-plugins"];
    for Case { what, broken, proposal, mended } in CASES {
        let said = check(broken, &experimental);
        let proposed = said.lines().any(|line| line.contains("  mend: ") && line.contains(proposal));
        assert!(proposed, "{what}: {proposal}\n{said}");
        let after = check(mended, &experimental);
        assert!(findings(&after).is_empty(), "{what}: {:#?}\n{after}", findings(&after));
        assert!(after.contains(" is good: "), "{what}: {after}");
    }
}

#[test]
fn an_experimental_type_is_taken_with_the_flag_that_is_proposed() {
    let text = "plugins:\n- type: agent-identity\n- type: queue-scorer\n- type: max-score-picker\n";
    let said = check(text, &[]);
    assert!(said.contains("  mend: `--allow-experimental-plugins` on the command line"), "{said}");
    let after = check(text, &["--allow-experimental-plugins"]);
    assert!(findings(&after).is_empty() && after.contains(" is good: "), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_unlike_those_of_a_running_engine_are_mended_by_the_proposed_size() {
    let fleet = Fleet::start(1, &["--block-size", "32"]).await;
    let url = format!("http://{}", fleet.list().next().unwrap().1);
    for (kind, given, proposal, mended) in [
        (
            "approx-prefix-cache-producer",
            "{blockSizeTokens: 128}",
            "`blockSizeTokens: 32` among the parameters of \"index\"",
            "{blockSizeTokens: 32}",
        ),
        (
            "precise-prefix-cache-producer",
            "{}",
            "`tokenProcessorConfig.blockSizeTokens: 32` among the parameters of \"index\"",
            "{tokenProcessorConfig: {blockSizeTokens: 32}}",
        ),
    ] {
        let text = |parameters: &str| {
            format!(
                "plugins:\n- type: {kind}\n  name: index\n  parameters: {parameters}\n- type: token-producer\n  parameters: {{estimate: {{}}}}\n\
                 - type: prefix-cache-scorer\n  parameters: {{prefixMatchInfoProducerName: index}}\n- type: max-score-picker\n"
            )
        };
        let with_url = ["--url", &url];
        let said = check(&text(given), &with_url);
        assert!(
            said.lines().any(|line| line.contains("  mend: ") && line.contains(proposal)),
            "{kind}: {said}"
        );
        let after = check(&text(mended), &with_url);
        let sizes: Vec<&str> = after.lines().filter(|line| line.contains(" counts blocks of ")).collect();
        assert!(sizes.is_empty(), "{kind}: {sizes:?}\n{after}");
    }
}
