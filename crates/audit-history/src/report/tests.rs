#![allow(clippy::unwrap_used)]

use audit_core::position::Micros;
use audit_core::totals::Totals;

use super::*;

fn request() -> ReportRequest {
    ReportRequest {
        source: "shop".to_owned(),
        sink: "hot".to_owned(),
        tables: Vec::new(),
        since: "2025-12-31T18:15:00Z".parse().unwrap(),
        until: "2026-03-31T18:15:00Z".parse().unwrap(),
        zone: crate::question::zone::zone("+05:45").unwrap(),
        zone_name: "+05:45".to_owned(),
        config_fingerprint: "f".to_owned(),
        looked: None,
    }
}

fn report(by_day: &[(&str, u64)], actor: Option<&str>) -> Report {
    let mut totals = Totals { versions: by_day.iter().map(|(_, count)| count).sum(), ..Totals::default() };
    // The first quarter of an hour of the day in the zone.
    let quarter = |text: &str| format!("{text}T00:00:00+05:45").parse::<Micros>().unwrap().0 / QUARTER;
    totals.by_quarter = by_day.iter().map(|(text, count)| (quarter(text), *count)).collect();
    totals.count_actor(actor, totals.versions);
    let head = ReportHead { sink: "hot".to_owned(), position: None, stored_at: None };
    Report::of(&request(), totals, (Vec::new(), 0), (head, Coverage::default()))
}

#[test]
fn the_period_ends_with_its_last_day() {
    assert_eq!(report(&[], None).period, "2026-01-01 to 2026-03-31");
}

#[test]
fn days_without_versions_are_shown_and_many_days_become_months() {
    let days = report(&[("2026-01-30", 2), ("2026-02-01", 3)], None).timeline();
    let expected = [("2026-01-30", 2), ("2026-01-31", 0), ("2026-02-01", 3)];
    assert_eq!(days, expected.map(|(day, count)| (day.to_owned(), count)));
    let months = report(&[("2025-01-30", 2), ("2025-01-31", 1), ("2026-02-01", 3)], None).timeline();
    assert_eq!(months, [("2025-01".to_owned(), 3), ("2026-02".to_owned(), 3)]);
}

#[test]
fn versions_without_an_actor_are_not_an_actor_of_that_name() {
    let nobody = report(&[("2026-01-30", 2)], None);
    assert_eq!((nobody.changes_by_actor.len(), nobody.changes_without_actor), (0, 2));
    assert_eq!(nobody.actors(), [("(nobody said who)", 2)]);
}

/// A name in an audit trail may have been chosen by an attacker.
#[test]
fn names_do_not_become_part_of_the_page() {
    let page = report(&[("2026-01-30", 2)], Some("<script>alert('1')</script>\u{202e}")).html();
    assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("), "{page}");
}

#[test]
fn numbers_are_grouped() {
    assert_eq!([0, 12, 123, 1_204, 1_000_000].map(html::number), ["0", "12", "123", "1,204", "1,000,000"]);
}
