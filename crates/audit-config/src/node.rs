//! Describes what one place of a configuration may contain, read from the JSON schema that schemars makes of a type.
//!
//! A [`Node`] is a schema with its references, `allOf`s and nullable wrappers merged into it. It unfolds one level at a
//! time, so that types may refer to themselves. It understands only what schemars makes of serde's attributes;
//! anything else counts as [`Shape::Any`] and is left to typed deserialisation.

use serde_json::Value as Json;

use crate::units::{SIZE_FORMAT, SPAN_FORMAT};

#[derive(Clone)]
pub(crate) struct Node<'a> {
    root: &'a Json,
    pub doc: Option<&'a str>,
    pub default: Option<&'a Json>,
    pub example: Option<&'a Json>,
    kinds: Vec<&'a str>,
    format: Option<&'a str>,
    words: Vec<&'a str>,
    items: Option<&'a Json>,
    properties: Vec<(&'a str, &'a Json)>,
    required: Vec<&'a str>,
    rest: Option<&'a Json>,
    /// The alternatives of an enum. There are several groups if several enums are flattened into one struct.
    choices: Vec<Vec<&'a Json>>,
    pub range: (Option<i128>, Option<i128>),
}

/// A key of a table.
pub(crate) struct Key<'a> {
    pub name: &'a str,
    pub required: bool,
    pub node: Node<'a>,
}

/// One variant of a table whose keys depend on a tag (`type = "lake"`): the tag, the variant's word, and its own and
/// shared keys.
pub(crate) struct Variant<'a> {
    pub tag: &'a str,
    pub word: &'a str,
    pub node: Node<'a>,
}

/// The kind of value that a node describes.
pub(crate) enum Shape<'a> {
    Any,
    Text,
    Bool,
    Integer,
    Number,
    Size,
    Span,
    /// One of these words, each with its meaning if it is documented.
    Words(Vec<(&'a str, Option<&'a str>)>),
    List(Box<Node<'a>>),
    Table,
    /// A table with exactly one of these keys.
    OneKey(Vec<Key<'a>>),
    Either(Vec<Node<'a>>),
}

impl<'a> Node<'a> {
    pub fn root(schema: &'a Json) -> Node<'a> {
        Node::read(schema, schema)
    }

    fn read(root: &'a Json, schema: &'a Json) -> Node<'a> {
        let mut node = Node {
            root,
            doc: None,
            default: None,
            example: None,
            kinds: Vec::new(),
            format: None,
            words: Vec::new(),
            items: None,
            properties: Vec::new(),
            required: Vec::new(),
            rest: None,
            choices: Vec::new(),
            range: (None, None),
        };
        node.absorb(schema);
        node
    }

    /// Adds what `schema` says. What is already known stays, because it was said closer to the key.
    fn absorb(&mut self, schema: &'a Json) {
        let list = |key| schema.get(key).and_then(Json::as_array).into_iter().flatten();
        let text = |key| schema.get(key).and_then(Json::as_str);
        let number = |key| schema.get(key).and_then(|n| n.as_i64().map(i128::from).or(n.as_u64().map(i128::from)));
        self.doc = self.doc.or(text("description"));
        self.default = self.default.or(schema.get("default"));
        self.example = self.example.or(schema.get("example")).or(list("examples").next());
        self.format = self.format.or(text("format"));
        self.items = self.items.or(schema.get("items"));
        self.rest = self.rest.or(schema.get("additionalProperties")).or(schema.get("unevaluatedProperties"));
        self.range = (self.range.0.or(number("minimum")), self.range.1.or(number("maximum")));
        if self.kinds.is_empty() {
            let kinds = text("type").into_iter().chain(list("type").filter_map(Json::as_str));
            self.kinds = kinds.filter(|kind| *kind != "null").collect();
        }
        if self.words.is_empty() {
            self.words = text("const").into_iter().chain(list("enum").filter_map(Json::as_str)).collect();
        }
        for (name, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            if !self.properties.iter().any(|(known, _)| known == name) {
                self.properties.push((name, property));
            }
        }
        self.required.extend(list("required").filter_map(Json::as_str));
        self.absorb_parts(schema);
    }

    fn absorb_parts(&mut self, schema: &'a Json) {
        let root = self.root;
        let list = |key| schema.get(key).and_then(Json::as_array).into_iter().flatten();
        let target =
            schema.get("$ref").and_then(Json::as_str).and_then(|path| root.pointer(path.trim_start_matches('#')));
        for part in target.into_iter().chain(list("allOf")) {
            self.absorb(part);
        }
        for group in ["oneOf", "anyOf"] {
            let says = |part: &&Json| part["type"] != "null" && part.as_object().is_none_or(|part| !part.is_empty());
            match list(group).filter(says).collect::<Vec<_>>().as_slice() {
                [] => {}
                [only] => self.absorb(only),
                several => self.choices.push(several.to_vec()),
            }
        }
    }

    pub fn shape(&self) -> Shape<'a> {
        if let Some(shape) = self.choice() {
            return shape;
        }
        match (self.format, self.kinds.as_slice()) {
            (Some(SIZE_FORMAT), _) => Shape::Size,
            (Some(SPAN_FORMAT), _) => Shape::Span,
            _ if !self.words.is_empty() => Shape::Words(self.words.iter().map(|word| (*word, self.doc)).collect()),
            (_, ["string"]) => Shape::Text,
            (_, ["boolean"]) => Shape::Bool,
            (_, ["integer"]) => Shape::Integer,
            (_, ["number"]) => Shape::Number,
            (_, ["array"]) => self.items.map_or(Shape::Any, |items| Shape::List(Node::read(self.root, items).into())),
            (_, ["object"]) => Shape::Table,
            _ => Shape::Any,
        }
    }

    fn choice(&self) -> Option<Shape<'a>> {
        let alternatives = self.choices.first()?;
        if !self.properties.is_empty() || self.variants().is_some() {
            return Some(Shape::Table);
        }
        let nodes: Vec<_> = alternatives.iter().map(|part| Node::read(self.root, part)).collect();
        if nodes.iter().all(|node| !node.words.is_empty()) {
            // The words of a derived enum share one schema without docs, or have one schema each.
            let word = |node: &Node<'a>| node.words.iter().map(|word| (*word, node.doc)).collect::<Vec<_>>();
            return Some(Shape::Words(nodes.iter().flat_map(word).collect()));
        }
        if nodes.iter().all(|node| node.properties.len() == 1 && node.required.len() == 1) {
            return Some(Shape::OneKey(nodes.iter().filter_map(Node::only_key).collect()));
        }
        Some(Shape::Either(nodes))
    }

    /// Lists the keys of a table in the order of declaration. If a table has [variants](Self::variants), use theirs.
    pub fn keys(&self) -> Vec<Key<'a>> {
        let own = self.properties.iter().map(|(name, schema)| {
            let required = self.required.contains(name);
            Key { name, required, node: Node::read(self.root, schema) }
        });
        let flattened = self.choices.iter().flatten().flat_map(|part| Node::read(self.root, part).keys());
        own.chain(flattened.map(|key| Key { required: false, ..key })).collect()
    }

    /// Returns the only key of a variant. The variant's documentation and example serve for a key that has none.
    fn only_key(&self) -> Option<Key<'a>> {
        let mut key = self.keys().pop()?;
        key.node.doc = key.node.doc.or(self.doc);
        key.node.example = key.node.example.or(self.example);
        Some(key)
    }

    /// Describes the values of a map, whose keys are free.
    pub fn values(&self) -> Option<Node<'a>> {
        match self.rest? {
            Json::Bool(false) => None,
            schema => Some(Node::read(self.root, schema)),
        }
    }

    /// Lists the variants of a table that are distinguished by a tag.
    pub fn variants(&self) -> Option<Vec<Variant<'a>>> {
        let (alternatives, others) = self.choices.split_first()?;
        let variants = alternatives.iter().map(|schema| {
            let mut node = Node::read(self.root, schema);
            let (tag, property) = *node.properties.iter().find(|(_, key)| key.get("const").is_some())?;
            let word = property["const"].as_str()?;
            let shared = self.properties.iter().filter(|(name, _)| node.properties.iter().all(|(own, _)| own != name));
            let shared: Vec<_> = shared.copied().collect();
            node.properties.extend(shared);
            node.required.extend(&self.required);
            node.choices.extend_from_slice(others);
            node.rest = node.rest.or(self.rest);
            Some(Variant { tag, word, node })
        });
        let variants: Vec<_> = variants.collect::<Option<_>>()?;
        let first = variants.first()?.tag;
        variants.iter().all(|variant| variant.tag == first).then_some(variants)
    }
}
