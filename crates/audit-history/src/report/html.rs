//! The report as a page. Everything that came from the trail is escaped, and the page may load nothing.

use std::fmt::{self, Display, Formatter};

use super::{Report, largest_first};

/// Maximum number of rows of a chart; the rest is summed up.
const ROWS_MAX: usize = 25;

const STYLE: &str = "
:root { --ink: #1d2733; --soft: #64748b; --line: #e2e8f0; --bar: #2f6f9f; --warn: #b45309; --paper: #fff; --ground: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #94a3b8; --line: #2d3748; --bar: #5aa2d6;
  --warn: #fbbf24; --paper: #161d26; --ground: #0d1218 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.5rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1rem; margin: 0 0 .75rem }
.soft { color: var(--soft) } .number { font-variant-numeric: tabular-nums; text-align: right }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; margin: 1.5rem 0 }
.tile, section { background: var(--paper); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem 1.25rem }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums }
.tile.warn b { color: var(--warn) }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; margin: 1rem 0 }
section { break-inside: avoid; margin: 0 0 1rem; overflow-wrap: anywhere } .charts section { margin: 0 }
svg { display: block; width: 100%; height: auto } svg text { fill: var(--soft); font-size: 11px }
rect { fill: var(--bar) } table { border-collapse: collapse; width: 100% }
td, th { padding: .3rem .6rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
td.bar { width: 40% } td.bar svg { height: .8rem } footer { font-size: .85rem; margin-top: 1.5rem; overflow-wrap: anywhere }
@media print { @page { margin: 15mm } :root { --ink: #000; --soft: #444; --line: #bbb; --bar: #333; --warn: #000;
  --paper: #fff; --ground: #fff } main { padding: 0; max-width: none } body { font-size: 11px } }
";

/// A text in which no character has a meaning in HTML, and none drives the reader's terminal or turns the direction.
struct Text<'t>(&'t str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                write!(f, "{}", c.escape_unicode())
            }
            c => write!(f, "{c}"),
        })
    }
}

/// `1,204`
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let head = (!head.is_empty()).then(|| head.to_owned());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

pub fn page(report: &Report) -> String {
    let mut charts = chart("By actor", &report.actors());
    charts += &chart("By table", &largest_first(&report.changes_by_table));
    charts += &chart("By event", &largest_first(&report.changes_by_event));
    charts += &looked(report);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Audit report of {source}, {period}</title><style>{STYLE}</style></head>\n<body><main>\n\
         <header><h1>{source}</h1><div class=\"soft\">Audit report · {since} to before {until} · {zone}</div></header>\n\
         {tiles}{days}<div class=\"charts\">{charts}</div>{gaps}{footer}</main></body></html>\n",
        source = Text(&report.source),
        period = report.period,
        since = report.since,
        until = report.until,
        zone = report.timezone,
        tiles = tiles(report),
        days = days(report),
        gaps = gaps(report),
        footer = footer(report),
    )
}

fn tiles(report: &Report) -> String {
    let tile = |(name, count, is_warning): (&str, u64, bool)| {
        let class = if is_warning && count > 0 { "tile warn" } else { "tile" };
        format!("<div class=\"{class}\"><b>{}</b>{name}</div>", number(count))
    };
    let tiles = [
        ("versions", report.total_versions, false),
        ("actors", report.changes_by_actor.len() as u64, false),
        ("tables", report.changes_by_table.len() as u64, false),
        ("without a required actor", report.unattributed.without_actor, true),
        ("without a required reason", report.unattributed.without_reason, true),
        ("undone", report.undone, false),
        ("gaps", report.total_gaps, true),
    ];
    format!("<div class=\"tiles\">{}</div>\n", tiles.map(tile).concat())
}

/// A column for each day.
fn days(report: &Report) -> String {
    let timeline = report.timeline();
    let (Some((first, _)), Some((last, _))) = (timeline.first(), timeline.last()) else {
        return "<section><h2>No versions in this span</h2></section>\n".to_owned();
    };
    let most = timeline.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let step = 960.0 / timeline.len() as f64;
    let column = |(at, (name, count)): (usize, &(String, u64))| {
        let height = if *count == 0 { 0.0 } else { (150.0 * *count as f64 / most as f64).max(1.5) };
        format!(
            "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{height:.2}\"><title>{name}: {}</title></rect>",
            at as f64 * step,
            165.0 - height,
            (step * 0.8).min(60.0),
            number(*count)
        )
    };
    let columns: String = timeline.iter().enumerate().map(column).collect();
    let unit = if first.len() > 7 { "day" } else { "month" };
    let end = if first == last {
        String::new()
    } else {
        format!("<text x=\"960\" y=\"182\" text-anchor=\"end\">{last}</text>")
    };
    format!(
        "<section><h2>Versions by {unit}</h2><svg viewBox=\"0 0 960 188\" role=\"img\" aria-label=\"versions by {unit}\">\
         <text x=\"0\" y=\"11\">{}</text>{columns}<line x1=\"0\" x2=\"960\" y1=\"165.5\" y2=\"165.5\" stroke=\"currentColor\" \
         stroke-opacity=\".3\"/><text x=\"0\" y=\"182\">{first}</text>{end}</svg></section>\n",
        number(most)
    )
}

/// A table with a bar for each row.
fn chart(title: &str, rows: &[(&str, u64)]) -> String {
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let row = |(name, count): &(&str, u64)| {
        let width = 100.0 * *count as f64 / most as f64;
        format!(
            "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"bar\"><svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" \
             aria-hidden=\"true\"><rect width=\"{width:.2}\" height=\"8\"/></svg></td></tr>",
            Text(name),
            number(*count)
        )
    };
    let mut shown: String = rows.iter().take(ROWS_MAX).map(row).collect();
    if let Some(rest) = rows.get(ROWS_MAX..).filter(|rest| !rest.is_empty()) {
        let sum = rest.iter().map(|(_, count)| count).sum();
        shown += &format!(
            "<tr class=\"soft\"><td>{} more</td><td class=\"number\">{}</td><td></td></tr>",
            rest.len(),
            number(sum)
        );
    }
    format!("<section><h2>{title}</h2><table>{shown}</table></section>\n")
}

fn looked(report: &Report) -> String {
    let rows = match &report.sensitive_field_access {
        None => "<tr><td class=\"soft\">The access log could not be read.</td></tr>".to_owned(),
        Some(looked) if looked.is_empty() => {
            "<tr><td class=\"soft\">Nobody opened a protected value.</td></tr>".to_owned()
        }
        Some(looked) => {
            let row = |looked: &super::Looked| {
                let (user, action) = (Text(&looked.user), Text(&looked.action));
                format!("<tr><td>{user}</td><td>{action}</td><td class=\"number\">{}</td></tr>", number(looked.count))
            };
            looked.iter().map(row).collect()
        }
    };
    format!("<section><h2>Protected values that were opened</h2><table>{rows}</table></section>\n")
}

fn gaps(report: &Report) -> String {
    if report.gaps.is_empty() {
        return "<section><h2>Gaps</h2><div class=\"soft\">No gap was recorded in this span.</div></section>\n"
            .to_owned();
    }
    let row = |gap: &super::Lost| {
        let lost = gap.lost.as_ref().map_or("", |lost| lost.get());
        format!("<tr><td>{}</td><td>{}</td><td>{}</td></tr>", gap.committed_at, gap.position, Text(lost))
    };
    let rows: String = report.gaps.iter().map(row).collect();
    let further = report.total_gaps.saturating_sub(report.gaps.len() as u64);
    let further = if further > 0 { format!("<div class=\"soft\">{further} gaps more</div>") } else { String::new() };
    format!("<section><h2>Gaps: changes in them are not known</h2><table>{rows}</table>{further}</section>\n")
}

fn footer(report: &Report) -> String {
    let stored = report.head.stored_at.as_deref().map_or(String::new(), |at| format!(", stored at {at}"));
    format!(
        "<footer class=\"soft\">Answered {}{stored}.<br>Configuration {}.</footer>\n",
        Text(&report.coverage.to_string()),
        report.config_fingerprint
    )
}
