//! What is protected inside a value that is itself kept: members of documents by their names, and sensitive content in
//! text.
//!
//! A document is read once, from its first byte to its last, and copied except for what is replaced. A replacement is a
//! JSON string, so that a document stays a document. Documents are searched for wherever there is text: in text
//! columns, in strings of other documents, in the parts of arrays, rows and `hstore`s, and nested in one another.

mod names;

use std::ops::Range;
use std::sync::Arc;

use crate::content::Content;
use crate::method::{Method, MethodRule};
use crate::pattern::matches;
use crate::shape::ShapeColumn;
use crate::value::Kind;

pub use names::Names;
pub(crate) use names::snake_case;

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As text, which may still be a document.
    #[default]
    Text,
    /// As JSON. ⚠ A value that is not valid JSON could hide anything, so it is hidden whole.
    Document,
    /// As arrays of documents.
    Documents,
    /// As arrays and types of the database's own: their values are searched part by part as far as they are arrays,
    /// rows or `hstore`s.
    Parts,
}

/// Built-in types of PostgreSQL have smaller OIDs (`FirstUnpinnedObjectId`).
const FIRST_OWN_TYPE: u32 = 10_000;

impl Form {
    /// The form of a column's values; `None` for numbers, dates and other values that hold no text.
    pub fn of(column: &ShapeColumn) -> Option<Form> {
        match &column.kind {
            Kind::Json | Kind::Jsonb => Some(Form::Document),
            Kind::Array(element) => match element.as_ref() {
                Kind::Json | Kind::Jsonb => Some(Form::Documents),
                Kind::Text => Some(Form::Parts),
                _ => None,
            },
            Kind::Text if column.type_oid < FIRST_OWN_TYPE => Some(Form::Text),
            Kind::Text => Some(Form::Parts),
            _ => None,
        }
    }
}

/// Protects what is at a path in the documents of one column.
#[derive(Clone, Debug)]
pub struct PathRule {
    /// Keys from the top level on, each with `*` and `?`. Lists are not a level: a path goes through all of their
    /// items.
    pub keys: Vec<String>,
    pub methods: Vec<MethodRule>,
}

/// What is protected inside the values of a column; see the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    pub form: Form,
    /// Rules by path, which decide before `names`.
    pub paths: Vec<PathRule>,
    pub names: Arc<Names>,
    /// Each match is replaced by what the method leaves of it.
    pub content: Vec<(Content, MethodRule)>,
}

impl Inside {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && !self.names_members()
    }

    fn names_members(&self) -> bool {
        !(self.paths.is_empty() && self.names.is_empty())
    }

    /// Whether something in a value may become a ciphertext.
    pub(crate) fn encrypts(&self) -> bool {
        self.of_members().any(|rule| rule.method == Method::Encrypt)
    }

    fn of_members(&self) -> impl Iterator<Item = &MethodRule> {
        self.paths.iter().flat_map(|path| &path.methods).chain(self.names.methods())
    }

    /// All methods, of members and of content.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &MethodRule> {
        self.of_members().chain(self.content.iter().map(|(_, rule)| rule))
    }

    /// Passes the parts of all rules to `each`: two columns with the same parts protect the same.
    pub(crate) fn each_part(&self, mut each: impl FnMut(&str)) {
        each(&format!("{:?}", self.form));
        for path in &self.paths {
            each(&path.keys.join("."));
            path.methods.iter().for_each(|method| each(&method.to_string()));
        }
        self.names.each_part(&mut each);
        for (content, method) in &self.content {
            each(content.plural());
            each(&method.to_string());
        }
    }

    /// A description for people of what is left out of a value.
    pub fn describe(&self) -> String {
        let content = self.content.iter().map(|(content, method)| format!("{} ({})", content.plural(), method));
        let members = || match self.form {
            Form::Text => "members of documents that rules name".to_owned(),
            Form::Parts => "members of documents and keys of `hstore`s that rules name".to_owned(),
            Form::Document | Form::Documents => "members that rules name".to_owned(),
        };
        let parts: Vec<String> = self.names_members().then(members).into_iter().chain(content).collect();
        parts.join(", ")
    }

    /// Whether something in this value may be protected. For plain text the answer is exact; for a document only
    /// reading it through would tell.
    pub(crate) fn may_find(&self, text: &str) -> bool {
        self.form != Form::Text || may_be_document(text) || Found::new(&self.content).next(text, 0).is_some()
    }

    /// The rules for the member that the keys lead to; the last key is `name`.
    pub(crate) fn of_member<'k>(
        &self,
        keys: impl Iterator<Item = &'k str> + Clone,
        name: &str,
    ) -> Option<&[MethodRule]> {
        let is_at = |path: &PathRule| {
            keys.clone().count() == path.keys.len()
                && keys.clone().zip(&path.keys).all(|(key, pattern)| matches(pattern, key))
        };
        let by_path = self.paths.iter().find(|path| is_at(path)).map(|path| path.methods.as_slice());
        by_path.or_else(|| self.names.find(name)).filter(|methods| !methods.is_empty())
    }
}

/// Finds the next content of any wanted kind in a text. A match that was found further on is remembered, so that a text
/// is searched only once for each kind, however many matches it has.
pub(crate) struct Found<'r> {
    rules: &'r [(Content, MethodRule)],
    /// The next match of each [`Content`]: `None` if there is no further one, an empty range if it is not known.
    pub(crate) next: [Option<Range<usize>>; Content::COUNT],
}

impl<'r> Found<'r> {
    pub(crate) fn new(rules: &'r [(Content, MethodRule)]) -> Found<'r> {
        Found { rules, next: [const { Some(0..0) }; Content::COUNT] }
    }

    /// The first match at or after `from`, which never decreases.
    pub(crate) fn next(&mut self, text: &str, from: usize) -> Option<(Range<usize>, Content, &'r MethodRule)> {
        let mut first: Option<(Range<usize>, Content, &MethodRule)> = None;
        for (content, rule) in self.rules {
            let next = &mut self.next[*content as usize];
            if next.as_ref().is_some_and(|known| known.is_empty() || known.start < from) {
                *next = content.find(text, from);
            }
            if let Some(found) =
                next.as_ref().filter(|found| first.as_ref().is_none_or(|(first, ..)| found.start < first.start))
            {
                first = Some((found.clone(), *content, rule));
            }
        }
        first
    }
}

pub(crate) fn may_be_document(text: &str) -> bool {
    matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'[' | b'"'))
}
