//! Random statements over tables that are hard to put back.

use cdc_audit_tests::dice::Dice;

/// Foreign keys that cascade, set NULL, are deferred, or refer to the own table; a trigger that keeps a count, and one that
/// touches the row; generated and identity columns; values whose text is not obvious.
pub const SCHEMA: &str = r#"
CREATE TABLE regions (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, "Odd ""Name" bytea);
CREATE TABLE people (
    id int PRIMARY KEY, boss int REFERENCES people ON DELETE SET NULL, region int REFERENCES regions ON DELETE CASCADE,
    code int UNIQUE, twice int GENERATED ALWAYS AS (id * 2) STORED, born date, wage numeric(8, 2));
CREATE TABLE tasks (
    person int REFERENCES people ON UPDATE CASCADE ON DELETE CASCADE, n int, doc jsonb, plain json, tags text[],
    PRIMARY KEY (person, n));
CREATE TABLE pairs (
    id int PRIMARY KEY, other int NOT NULL REFERENCES pairs DEFERRABLE INITIALLY DEFERRED, weight float8,
    at timestamptz, slot int UNIQUE DEFERRABLE INITIALLY DEFERRED, touched int NOT NULL DEFAULT 0);
CREATE TABLE strict (id int PRIMARY KEY, mate int NOT NULL CONSTRAINT strict_mate_fkey REFERENCES strict, low int CHECK (low > 0));
CREATE TABLE counts (id int PRIMARY KEY, people int NOT NULL);
INSERT INTO counts VALUES (1, 0);
CREATE FUNCTION count_people() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE counts SET people = people + CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
    RETURN NULL;
END $$;
CREATE TRIGGER count_people AFTER INSERT OR DELETE ON people FOR EACH ROW EXECUTE FUNCTION count_people();
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.touched = OLD.touched + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER touch BEFORE UPDATE ON pairs FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE regions REPLICA IDENTITY FULL; ALTER TABLE people REPLICA IDENTITY FULL; ALTER TABLE tasks REPLICA IDENTITY FULL;
ALTER TABLE pairs REPLICA IDENTITY FULL; ALTER TABLE strict REPLICA IDENTITY FULL; ALTER TABLE counts REPLICA IDENTITY FULL;
"#;

/// Rows of every table that come and go.
pub const EVERY_TABLE: &str = "BEGIN; INSERT INTO regions (name) VALUES ('first'); INSERT INTO people (id) VALUES (1); \
    INSERT INTO tasks VALUES (1, 1); INSERT INTO pairs VALUES (1, 1); INSERT INTO strict VALUES (1, 1); \
    DELETE FROM strict; DELETE FROM pairs; DELETE FROM people; DELETE FROM regions; COMMIT";

/// Everything but how often a trigger touched a row.
pub const DUMPED: &str = "SELECT jsonb_pretty(jsonb_build_array(
    (SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM regions t),
    (SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM people t),
    (SELECT jsonb_agg(to_jsonb(t) || jsonb_build_object('plain', plain::text) ORDER BY person, n) FROM tasks t),
    (SELECT jsonb_agg(to_jsonb(t) - 'touched' ORDER BY id) FROM pairs t),
    (SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM strict t),
    (SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM counts t)))";

/// One to six statements. Some of them fail, and some find no row.
pub fn transaction(dice: &mut Dice) -> Vec<String> {
    (0..dice.between(1, 6)).map(|_| statement(dice)).collect()
}

fn statement(dice: &mut Dice) -> String {
    match dice.below(5) {
        0 => regions(dice),
        1 => people(dice),
        2 => tasks(dice),
        3 => pairs(dice),
        _ => strict(dice),
    }
}

fn id(dice: &mut Dice) -> i64 {
    dice.between(1, 5)
}

/// A number or NULL.
fn maybe(dice: &mut Dice) -> String {
    if dice.one_in(3) { "NULL".to_owned() } else { id(dice).to_string() }
}

fn regions(dice: &mut Dice) -> String {
    let (one, name) = (id(dice), id(dice));
    match dice.below(5) {
        0 | 1 => format!("INSERT INTO regions OVERRIDING SYSTEM VALUE VALUES ({one}, 'r{name}', '\\x00ff{one:02}')"),
        2 => format!("UPDATE regions SET name = 'it''s \\ {name}', \"Odd \"\"Name\" = NULL WHERE id = {one}"),
        3 => format!("DELETE FROM regions WHERE id = {one}"),
        _ => format!("UPDATE regions SET name = CASE id WHEN {one} THEN 'r{name}' ELSE name || 'x' END"),
    }
}

fn people(dice: &mut Dice) -> String {
    let (one, other) = (id(dice), id(dice));
    match dice.below(9) {
        0..=2 => format!(
            "INSERT INTO people (id, boss, region, code, born, wage) VALUES ({one}, {}, {}, {}, '00{other}0-01-01 BC', {other}.50)",
            maybe(dice),
            maybe(dice),
            maybe(dice)
        ),
        3 => format!("UPDATE people SET boss = {}, wage = wage + 1 WHERE id = {one}", maybe(dice)),
        4 => format!("UPDATE people SET id = {other} WHERE id = {one}"),
        5 => format!("UPDATE people SET code = {} WHERE id = {one}", maybe(dice)),
        6 => format!("UPDATE people SET region = {}, born = 'infinity' WHERE id = {one}", maybe(dice)),
        7 => format!(
            "DO $$ BEGIN UPDATE people SET code = -1 WHERE code = {one}; UPDATE people SET code = {one} WHERE code = {other}; \
             UPDATE people SET code = {other} WHERE code = -1; END $$"
        ),
        _ => format!("DELETE FROM people WHERE id = {one}"),
    }
}

fn tasks(dice: &mut Dice) -> String {
    let (person, n, other) = (id(dice), dice.between(1, 3), id(dice));
    match dice.below(5) {
        0 | 1 => format!(
            "INSERT INTO tasks VALUES ({person}, {n}, '{{\"a\": [{other}, null], \"b\": 1.50}}', '{{\"x\" : {other}, \"x\":1}}', ARRAY['a,b', NULL, '{{\"}}'])"
        ),
        2 => format!("UPDATE tasks SET n = n + 1, doc = 'null' WHERE person = {person} AND n = {n}"),
        3 => format!("UPDATE tasks SET person = {other}, tags = '[0:1]={{x,y}}', plain = NULL WHERE person = {person}"),
        _ => format!("DELETE FROM tasks WHERE person = {person}"),
    }
}

fn pairs(dice: &mut Dice) -> String {
    let (one, other) = (id(dice), id(dice));
    let at = "'2026-03-01 09:30:00.5+02'";
    match dice.below(6) {
        0 | 1 => format!(
            "INSERT INTO pairs VALUES ({one}, {other}, -0.0, {at}, {one}), ({other}, {one}, 'NaN', NULL, {other})"
        ),
        2 => format!("UPDATE pairs SET other = {other}, weight = 1e-300 WHERE id = {one}"),
        3 => "UPDATE pairs SET slot = 6 - slot".to_owned(),
        4 => format!("DELETE FROM pairs WHERE id IN ({one}, {other})"),
        _ => "DELETE FROM pairs".to_owned(),
    }
}

fn strict(dice: &mut Dice) -> String {
    let (one, other) = (id(dice), id(dice));
    match dice.below(6) {
        0 | 1 => format!("INSERT INTO strict VALUES ({one}, {one}, {other})"),
        2 => format!("INSERT INTO strict VALUES ({one}, {other}, NULL)"),
        3 => format!("UPDATE strict SET mate = {other}, low = low - 1 WHERE id = {one}"),
        _ => format!("DELETE FROM strict WHERE id = {one}"),
    }
}
