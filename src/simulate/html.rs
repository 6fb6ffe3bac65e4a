//! Writes the report as one HTML page without other files.

use std::fmt::Write as _;

use super::report::{Plot, Report, Scenario, spelled};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:0 1.5em 1.5em 0;vertical-align:top}\
figcaption{font-size:.85em;color:#555;max-width:32em}svg{background:#fafafa;border:1px solid #ddd}svg text{font-size:11px}";

/// Colours that colour-blind readers can tell apart.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933"];

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 46.0;

/// The page of a report.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = format!("{} on {} servers like {}", report.trace, report.servers, report.engine);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style>\
         </head><body><h1>{0}</h1><p>Everything here was simulated by pointsman {1}: the program's own code chose \
         servers that do not exist, in virtual time. Seeds: {2}. Goodput counts answers whose first token came within \
         {3} ms and whose tokens then came at most {4} ms apart in the mean.</p>",
        escaped(&title),
        report.version,
        report.seeds.len(),
        report.slo_ttft_ms,
        report.slo_tbt_ms
    );
    for scenario in &report.scenarios {
        section(&mut out, scenario);
    }
    out.push_str("</body></html>\n");
    out
}

fn section(out: &mut String, scenario: &Scenario) {
    let _ = write!(
        out,
        "<h2>Rate {}x, {} replica(s), a reading every {} ms</h2><table><tr><th>chooser<th>first token, ms: mean<th>p50\
         <th>p90<th>p99<th>between tokens, ms: mean<th>p50<th>p90<th>p99<th>goodput, %<th>cache hits, %\
         <th>infinite cache, %<th>imbalance<th>regret, ms<th>refused<th>failed<th>p90 of the first token to the \
         default's</tr>",
        scenario.rate, scenario.replicas, scenario.interval_ms
    );
    for chooser in &scenario.choosers {
        let mean = &chooser.mean;
        let _ = write!(out, "<tr><td>{}", escaped(&chooser.name));
        let (first, between) = (mean.ttft_ms, mean.tbt_ms);
        for value in
            [first.mean, first.p50, first.p90, first.p99, between.mean, between.p50, between.p90, between.p99]
        {
            let _ = write!(out, "<td>{value:.0}");
        }
        for value in
            [mean.goodput * 100.0, mean.hit_rate * 100.0, mean.infinite_hit_rate * 100.0, mean.imbalance]
        {
            let _ = write!(out, "<td>{value:.2}");
        }
        let ratio = chooser.ratios.get("ttft_p90_ms").map_or_else(String::new, spelled);
        let _ =
            write!(out, "<td>{:.0}<td>{}<td>{}<td>{ratio}</tr>", mean.regret_ms, mean.refused, mean.failed);
    }
    out.push_str("</table><h3>Share of requests by server, %</h3><table>");
    for chooser in &scenario.choosers {
        let _ = write!(out, "<tr><td>{}", escaped(&chooser.name));
        for share in &chooser.mean.shares {
            let _ = write!(out, "<td>{:.1}", share * 100.0);
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
    figures(out, &scenario.plots);
}

fn figures(out: &mut String, plots: &[Plot]) {
    let names: Vec<&str> = plots.iter().map(|plot| plot.name.as_str()).collect();
    let shares = |plot: &Plot| {
        let last = plot.ttft_ms.len().saturating_sub(1).max(1) as f64;
        plot.ttft_ms
            .iter()
            .enumerate()
            .map(|(at, ms)| (at as f64 / last * 100.0, ms.max(1.0).log10()))
            .collect()
    };
    chart(
        out,
        "Time to first token (10^y ms) by share of the requests, %: the line that stays low longest is best.",
        &names,
        &plots.iter().map(shares).collect::<Vec<_>>(),
    );
    let over_time =
        |plot: &Plot, values: &[f64]| plot.seconds.iter().copied().zip(values.iter().copied()).collect();
    chart(
        out,
        "Share of prompt tokens that caches had, over time in s.",
        &names,
        &plots.iter().map(|plot| over_time(plot, &plot.hit_rate)).collect::<Vec<_>>(),
    );
    for plot in plots {
        let servers: Vec<String> = (0..plot.load.len()).map(|server| server.to_string()).collect();
        chart(
            out,
            &format!("{}: waiting and running requests of each server, over time in s.", plot.name),
            &servers.iter().map(String::as_str).collect::<Vec<_>>(),
            &plot.load.iter().map(|load| over_time(plot, load)).collect::<Vec<_>>(),
        );
    }
}

/// Draws lines over the same axes, which begin at 0.
fn chart(out: &mut String, caption: &str, names: &[&str], lines: &[Vec<(f64, f64)>]) {
    let most = |read: fn(&(f64, f64)) -> f64| lines.iter().flatten().map(read).fold(1e-9, f64::max);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    let x = |value: f64| MARGIN + value / right * (WIDTH - MARGIN - 10.0);
    let y = |value: f64| HEIGHT - 24.0 - value / top * (HEIGHT - 40.0);
    let _ = write!(out, "<figure><svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">");
    for quarter in 0..=4 {
        let part = f64::from(quarter) / 4.0;
        let _ = write!(
            out,
            "<line x1=\"{MARGIN}\" x2=\"{:.0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e5e5e5\"/>\
             <text x=\"2\" y=\"{1:.1}\">{2}</text><text x=\"{3:.1}\" y=\"{4:.0}\">{5}</text>",
            WIDTH - 10.0,
            y(part * top),
            short(part * top),
            x(part * right) - 8.0,
            HEIGHT - 6.0,
            short(part * right)
        );
    }
    for ((name, line), colour) in names.iter().zip(lines).zip(COLOURS.iter().cycle()) {
        let points: Vec<String> =
            line.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\" points=\"{}\"><title>{}</title></polyline>",
            points.join(" "),
            escaped(name)
        );
    }
    let legend: Vec<String> = names
        .iter()
        .zip(COLOURS.iter().cycle())
        .map(|(name, colour)| format!("<span style=\"color:{colour}\">&#9632;</span> {}", escaped(name)))
        .collect();
    let _ = write!(out, "</svg><figcaption>{} {}</figcaption></figure>", escaped(caption), legend.join(" "));
}

fn short(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_else_and_names_cannot_break_out() {
        let plot = Plot {
            name: "<b>".to_owned(),
            ttft_ms: vec![1.0, 10.0],
            seconds: vec![0.0, 1.0],
            load: vec![vec![0.0, 2.0]],
            hit_rate: vec![0.0, 0.5],
        };
        let scenario =
            Scenario { rate: 1.0, replicas: 1, interval_ms: 50.0, choosers: Vec::new(), plots: vec![plot] };
        let report = Report {
            version: "0",
            trace: "a<script>".to_owned(),
            engine: "e".to_owned(),
            servers: 1,
            seeds: vec![0],
            slo_ttft_ms: 1.0,
            slo_tbt_ms: 1.0,
            scenarios: vec![scenario],
        };
        let page = page(&report);
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("http"), "{page}");
        assert_eq!(page.matches("<svg").count(), 3);
    }
}
