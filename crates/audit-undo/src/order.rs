//! The order in which rows are written back, so that no constraint is violated on the way: [`order`].
//!
//! Every row is written once. Between rows there are edges, each because of a constraint:
//!
//! - a child leaves its parent before the parent's key goes away;
//! - a parent's key is there before a child takes it;
//! - a unique value is given up before another row takes it.
//!
//! Where edges form a circle, first those are left out whose constraint is deferred to the end of the transaction. Then a
//! column is set to NULL before everything else, or given its value after everything else. What is left cannot be undone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Refusal;
use crate::catalog::{Action, Catalog, Foreign};

/// A row's values by column, as text.
pub type Image = BTreeMap<String, Option<String>>;

/// A row that is written, with all values that matter on both sides.
#[derive(Clone, Debug)]
pub struct Row {
    /// The table's place in the catalog.
    pub table: usize,
    pub key: String,
    /// The row as it is; `None` if there is none.
    pub now: Option<Image>,
    /// The row as it will be; `None` if there will be none.
    pub then: Option<Image>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Delete,
    Update(Image),
    Insert(Image),
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The row's place in the list.
    pub row: usize,
    /// The row as it is before the statement; empty for an insertion.
    pub from: Image,
    pub action: Write,
}

/// Why one row is written before another.
#[derive(Clone, Debug)]
struct Edge<'c> {
    before: usize,
    after: usize,
    constraint: &'c str,
    /// The row and the columns that may be NULL for a while instead.
    row: usize,
    columns: &'c [String],
    /// When the columns are NULL: until the row itself is written, or until everything is.
    early: bool,
    /// The constraint is checked at the end.
    deferred: bool,
}

struct Plan<'c, 'r> {
    catalog: &'c Catalog,
    rows: &'r [Row],
    edges: Vec<Edge<'c>>,
    /// Columns that a cascade of the server sets before the row is written.
    cascaded: Vec<Image>,
    /// Columns that are NULL before anything else is written.
    early: Vec<BTreeSet<String>>,
    /// Columns that get their value after everything else.
    late: Vec<BTreeSet<String>>,
}

/// The statements in their order, and the rows that the server's cascades write with others.
#[derive(Debug)]
pub struct Ordered {
    pub steps: Vec<Step>,
    pub cascaded: Vec<usize>,
}

/// Orders the rows, and makes their statements.
///
/// # Errors
/// Fails if there is no order; the refusal names the constraints.
pub fn order(catalog: &Catalog, rows: &[Row]) -> Result<Ordered, Refusal> {
    let none = vec![BTreeSet::new(); rows.len()];
    let mut plan = Plan {
        catalog,
        rows,
        edges: Vec::new(),
        cascaded: vec![Image::new(); rows.len()],
        early: none.clone(),
        late: none,
    };
    catalog.foreign.iter().for_each(|foreign| plan.foreign(foreign));
    plan.unique();
    loop {
        let (sequence, stuck) = plan.sorted();
        if stuck.is_empty() {
            let cascaded = (0..rows.len()).filter(|at| !plan.cascaded[*at].is_empty()).collect();
            return Ok(Ordered { steps: plan.steps(&sequence), cascaded });
        }
        plan.break_circle(&stuck)?;
    }
}

/// The values of columns; `None` if one of them is NULL or not there, which violates nothing.
fn values(image: Option<&Image>, columns: &[String]) -> Option<Vec<String>> {
    let image = image?;
    columns.iter().map(|column| image.get(column)?.clone()).collect()
}

/// The rows that give up, and the rows that take, values of columns.
struct Moves {
    gives: HashMap<Vec<String>, usize>,
    takes: HashMap<Vec<String>, usize>,
}

impl<'c> Plan<'c, '_> {
    fn of(&self, oid: u32) -> impl Iterator<Item = (usize, &Row)> {
        let table = self.catalog.by_oid(oid);
        self.rows.iter().enumerate().filter(move |(_, row)| Some(row.table) == table)
    }

    fn moves(&self, oid: u32, columns: &[String]) -> Moves {
        let mut moves = Moves { gives: HashMap::new(), takes: HashMap::new() };
        for (at, row) in self.of(oid) {
            let (now, then) = (values(row.now.as_ref(), columns), values(row.then.as_ref(), columns));
            if now != then {
                moves.gives.extend(now.map(|now| (now, at)));
                moves.takes.extend(then.map(|then| (then, at)));
            }
        }
        moves
    }

    fn foreign(&mut self, foreign: &'c Foreign) {
        let parents = self.moves(foreign.parent, &foreign.parent_columns);
        let columns = foreign.child_columns.as_slice();
        let (mut edges, mut cascaded) = (Vec::new(), Vec::new());
        for (at, row) in self.of(foreign.child) {
            let (now, then) = (values(row.now.as_ref(), columns), values(row.then.as_ref(), columns));
            if now == then {
                continue;
            }
            let edge = |before, after, early, deferred| Edge {
                before,
                after,
                constraint: &foreign.name,
                row: at,
                columns,
                early,
                deferred,
            };
            let left = now.as_ref().and_then(|now| parents.gives.get(now)).copied().filter(|parent| *parent != at);
            let taken = then.as_ref().and_then(|then| parents.takes.get(then)).copied().filter(|parent| *parent != at);
            if let (Some(parent), true) = (left, left == taken && foreign.on_update == Action::Cascade) {
                edges.push(edge(parent, at, true, false));
                cascaded.push((at, columns.iter().cloned().zip(then.into_iter().flatten().map(Some))));
                continue;
            }
            let deferred = foreign.deferrable;
            edges.extend(left.map(|parent| {
                let deleted = self.rows[parent].then.is_none();
                let action = if deleted { foreign.on_delete } else { foreign.on_update };
                // Only the refusal of NO ACTION waits for the end of the transaction.
                edge(at, parent, true, deferred && action == Action::None)
            }));
            edges.extend(taken.map(|parent| edge(parent, at, false, deferred)));
        }
        self.edges.append(&mut edges);
        cascaded.into_iter().for_each(|(at, image)| self.cascaded[at].extend(image));
    }

    fn unique(&mut self) {
        let mut edges = Vec::new();
        for table in &self.catalog.tables {
            for unique in &table.unique {
                let moves = self.moves(table.oid, &unique.columns);
                for (value, taker) in &moves.takes {
                    let Some(giver) = moves.gives.get(value).filter(|giver| *giver != taker) else { continue };
                    edges.push(Edge {
                        before: *giver,
                        after: *taker,
                        constraint: &unique.name,
                        row: *giver,
                        columns: &unique.columns,
                        early: true,
                        deferred: unique.deferrable,
                    });
                }
            }
        }
        edges.sort_by_key(|edge| (edge.before, edge.after));
        self.edges.append(&mut edges);
    }

    /// Deletions first, then updates, then insertions, as far as the edges let.
    fn rank(&self, at: usize) -> (u8, usize) {
        let rank = match (&self.rows[at].now, &self.rows[at].then) {
            (_, None) => 0,
            (Some(_), _) => 1,
            (None, _) => 2,
        };
        (rank, at)
    }

    /// The rows in an order that the edges allow, and those for which there is none.
    fn sorted(&self) -> (Vec<usize>, BTreeSet<usize>) {
        let mut waits = vec![0_usize; self.rows.len()];
        let mut next: HashMap<usize, Vec<usize>> = HashMap::new();
        for edge in &self.edges {
            waits[edge.after] += 1;
            next.entry(edge.before).or_default().push(edge.after);
        }
        let mut ready: BTreeSet<(u8, usize)> =
            (0..self.rows.len()).filter(|at| waits[*at] == 0).map(|at| self.rank(at)).collect();
        let mut sequence = Vec::new();
        while let Some((_, at)) = ready.pop_first() {
            sequence.push(at);
            for after in next.remove(&at).unwrap_or_default() {
                waits[after] -= 1;
                if waits[after] == 0 {
                    ready.insert(self.rank(after));
                }
            }
        }
        let stuck = (0..self.rows.len()).filter(|at| waits[*at] > 0).collect();
        (sequence, stuck)
    }

    /// Takes one edge out of a circle.
    fn break_circle(&mut self, stuck: &BTreeSet<usize>) -> Result<(), Refusal> {
        let circle = self.circle(stuck);
        let free = circle.iter().copied().find(|at| self.edges[*at].deferred);
        if let Some(at) = free {
            self.edges.remove(at);
            return Ok(());
        }
        let open = circle.iter().copied().find_map(|at| Some((at, self.nullable(&self.edges[at])?)));
        let Some((at, columns)) = open else { return Err(self.refused(&circle)) };
        let edge = self.edges.remove(at);
        let side = if edge.early { &mut self.early } else { &mut self.late };
        side[edge.row].extend(columns);
        Ok(())
    }

    /// The edges between rows that wait for one another: each of these rows has one before it and one after it.
    fn circle(&self, stuck: &BTreeSet<usize>) -> Vec<usize> {
        let mut inside = stuck.clone();
        loop {
            let within: Vec<usize> = (0..self.edges.len())
                .filter(|at| inside.contains(&self.edges[*at].before) && inside.contains(&self.edges[*at].after))
                .collect();
            let before: BTreeSet<usize> = within.iter().map(|at| self.edges[*at].before).collect();
            let smaller: BTreeSet<usize> =
                within.iter().map(|at| self.edges[*at].after).filter(|at| before.contains(at)).collect();
            if smaller == inside {
                return within;
            }
            inside = smaller;
        }
    }

    /// The columns of an edge that may be NULL for a while.
    fn nullable(&self, edge: &Edge<'_>) -> Option<Vec<String>> {
        let table = &self.catalog.tables[self.rows[edge.row].table];
        let may = |name: &&String| {
            let carried = self.cascaded[edge.row].contains_key(*name);
            table.column(name).is_some_and(|column| !column.not_null && !column.generated) && !carried
        };
        let columns: Vec<String> = edge.columns.iter().filter(may).cloned().collect();
        (!columns.is_empty()).then_some(columns)
    }

    fn refused(&self, circle: &[usize]) -> Refusal {
        let names: BTreeSet<&str> = circle.iter().map(|at| self.edges[*at].constraint).collect();
        let rows: BTreeSet<usize> = circle.iter().map(|at| self.edges[*at].before).collect();
        let rows = rows.into_iter().map(|at| {
            let row = &self.rows[at];
            format!("{} {}", self.catalog.tables[row.table].name, row.key)
        });
        let names: Vec<&str> = names.into_iter().collect();
        let what = format!("no order of statements satisfies {} on the way", names.join(", "));
        Refusal::new(what)
            .details(rows)
            .hint("make the constraint deferrable, or undo these rows one by one with the statements of --sql")
    }

    fn steps(&self, sequence: &[usize]) -> Vec<Step> {
        let mut steps = Vec::new();
        for (row, columns) in self.early.iter().enumerate().filter(|(_, columns)| !columns.is_empty()) {
            let Some(now) = &self.rows[row].now else { continue };
            let set: Image = columns.iter().map(|column| (column.clone(), None)).collect();
            steps.push(Step { row, from: now.clone(), action: Write::Update(set) });
        }
        steps.extend(sequence.iter().filter_map(|row| self.step(*row)));
        for (row, columns) in self.late.iter().enumerate().filter(|(_, columns)| !columns.is_empty()) {
            let Some(then) = &self.rows[row].then else { continue };
            let set: Image = then.iter().filter(|(name, _)| columns.contains(*name)).map(owned).collect();
            steps.push(Step { row, from: self.without_late(row), action: Write::Update(set) });
        }
        steps
    }

    /// The row as it is after its own statement.
    fn without_late(&self, at: usize) -> Image {
        let row = &self.rows[at];
        let mut image = row.then.clone().unwrap_or_default();
        for column in &self.late[at] {
            let nulled = row.now.is_none() || self.early[at].contains(column);
            let kept = row.now.as_ref().and_then(|now| now.get(column).cloned()).filter(|_| !nulled);
            image.insert(column.clone(), kept.flatten());
        }
        image
    }

    fn step(&self, at: usize) -> Option<Step> {
        let row = &self.rows[at];
        let mut from = row.now.clone().unwrap_or_default();
        from.extend(self.early[at].iter().filter(|_| row.now.is_some()).map(|column| (column.clone(), None)));
        from.extend(self.cascaded[at].iter().map(owned));
        let action = match (&row.now, &row.then) {
            (None, None) => return None,
            (Some(_), None) => Write::Delete,
            (None, Some(_)) => Write::Insert(self.without_late(at)),
            (Some(_), Some(_)) => {
                let then = self.without_late(at);
                let set: Image =
                    then.iter().filter(|(name, value)| from.get(*name) != Some(value)).map(owned).collect();
                if set.is_empty() {
                    return None;
                }
                Write::Update(set)
            }
        };
        Some(Step { row: at, from, action })
    }
}

fn owned((name, value): (&String, &Option<String>)) -> (String, Option<String>) {
    (name.clone(), value.clone())
}

#[cfg(test)]
mod tests;
