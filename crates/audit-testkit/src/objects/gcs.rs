//! A bucket of Google Cloud Storage in memory: the part of its XML API with which a client writes and reads objects.
//! Generations and their preconditions work; they are checked and changed under one lock. Clients need no credentials.
//! Objects are also written to a folder, for tests that read them without the server.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{fs, io};

use audit_core::position::Micros;
use percent_encoding::percent_decode_str;
use tokio::io::BufReader;
use tokio::net::TcpStream;

use super::http::{Request, answer};
use crate::proxy::listen;

/// Minimum size in bytes of every part of an upload except the last.
const PART_MIN: usize = 5 << 20;
/// Maximum number of entries of a page.
const PAGE: usize = 1000;

struct Bucket {
    folder: PathBuf,
    objects: BTreeMap<String, Object>,
    uploads: HashMap<String, BTreeMap<u32, Vec<u8>>>,
    /// The last number given to an object or an upload.
    generation: u64,
}

struct Object {
    body: Arc<Vec<u8>>,
    generation: u64,
    written: Micros,
}

type Headers = Vec<(&'static str, String)>;

struct Answer {
    status: &'static str,
    headers: Headers,
    body: Arc<Vec<u8>>,
}

impl Answer {
    fn new(status: &'static str, headers: Headers, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers, body: Arc::new(body.into()) }
    }

    fn failed(status: &'static str, code: &str) -> Answer {
        Answer::new(status, Vec::new(), format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"))
    }

    fn xml(body: &str) -> Answer {
        Answer::new("200 OK", Vec::new(), format!("<?xml version=\"1.0\"?>{body}"))
    }
}

/// Starts a server with one bucket, whose objects are in `folder`, and returns its port. It runs as long as the
/// process.
pub(super) fn start(bucket: &'static str, folder: PathBuf) -> u16 {
    listen(move |listener| async move {
        let (objects, uploads) = Default::default();
        let state = Arc::new(Mutex::new(Bucket { folder, objects, uploads, generation: 0 }));
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connection(client, bucket, Arc::clone(&state)));
        }
    })
}

async fn connection(client: TcpStream, name: &'static str, bucket: Arc<Mutex<Bucket>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from, mut to) = client.into_split();
    let mut from = BufReader::new(from);
    while let Some(request) = Request::read(&mut from).await? {
        let close = request.header("connection") == Some("close");
        let mut answered = bucket.lock().expect("no answer panics").answer(name, &request);
        if close {
            answered.headers.push(("connection", "close".to_owned()));
        }
        let head_only = request.method == "HEAD";
        answer(&mut to, answered.status, &answered.headers, &answered.body, head_only).await?;
        if close {
            break;
        }
    }
    Ok(())
}

/// The parsed target of a request.
struct Target {
    bucket: String,
    key: String,
    query: HashMap<String, String>,
}

impl Target {
    fn parse(target: &str) -> Target {
        let text = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (text(name), text(&value.replace('+', " ")))
        };
        Target { bucket: text(bucket), key: text(key), query: pairs.map(pair).collect() }
    }

    fn asks(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

impl Bucket {
    fn answer(&mut self, name: &str, request: &Request) -> Answer {
        let target = Target::parse(&request.target);
        if target.bucket != name {
            return Answer::failed("404 Not Found", "NoSuchBucket");
        }
        match (request.method.as_str(), target.asks("uploadId")) {
            ("GET", _) if target.key.is_empty() => self.list(&target),
            ("GET" | "HEAD", _) => self.get(&target.key, request),
            ("PUT", Some(upload)) => self.part(upload, &target, request),
            ("PUT", None) => self.put(target.key, request),
            ("POST", Some(upload)) => self.complete(upload, &target.key, request),
            ("POST", None) if target.asks("uploads").is_some() => {
                let id = format!("upload-{}", self.next());
                self.uploads.insert(id.clone(), BTreeMap::new());
                Answer::xml(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            ("DELETE", Some(upload)) => gone(self.uploads.remove(upload).is_some()),
            ("DELETE", None) => {
                let removed = self.objects.remove(&target.key).is_some();
                if removed {
                    fs::remove_file(self.folder.join(&target.key)).expect("an object's file");
                }
                gone(removed)
            }
            _ => Answer::failed("501 Not Implemented", "NotImplemented"),
        }
    }

    fn next(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    fn put(&mut self, key: String, request: &Request) -> Answer {
        if request.header("x-goog-copy-source").is_some() {
            return Answer::failed("501 Not Implemented", "NotImplemented");
        }
        let wanted = request.header("x-goog-if-generation-match");
        let present = self.objects.get(&key).map_or(0, |object| object.generation);
        if wanted.is_some_and(|wanted| wanted != present.to_string()) {
            return Answer::failed("412 Precondition Failed", "PreconditionFailed");
        }
        let headers = self.store(key, request.body.clone());
        Answer::new("200 OK", headers, "")
    }

    fn store(&mut self, key: String, body: Vec<u8>) -> Headers {
        let object = Object { body: Arc::new(body), generation: self.next(), written: Micros::now() };
        let headers = headers_of(&object);
        // As in the bucket, an object appears whole or not at all.
        let (path, part) = (self.folder.join(&key), self.folder.join(".part"));
        fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder for an object");
        fs::write(&part, object.body.as_slice()).and_then(|()| fs::rename(&part, path)).expect("an object's file");
        self.objects.insert(key, object);
        headers
    }

    fn part(&mut self, upload: &str, target: &Target, request: &Request) -> Answer {
        let number = target.asks("partNumber").and_then(|number| number.parse().ok());
        match (self.uploads.get_mut(upload), number) {
            (Some(parts), Some(number)) => {
                parts.insert(number, request.body.clone());
                Answer::new("200 OK", vec![("etag", format!("\"part-{number}\""))], "")
            }
            _ => Answer::failed("404 Not Found", "NoSuchUpload"),
        }
    }

    /// Joins the parts that the request names, in its order.
    fn complete(&mut self, upload: &str, key: &str, request: &Request) -> Answer {
        let Some(parts) = self.uploads.get(upload) else { return Answer::failed("404 Not Found", "NoSuchUpload") };
        let named = String::from_utf8_lossy(&request.body);
        let numbers = named.split("<PartNumber>").skip(1).map(|rest| rest.split('<').next()?.parse::<u32>().ok());
        let bodies: Option<Vec<&Vec<u8>>> = numbers.map(|number| parts.get(&number?)).collect();
        let Some(bodies) = bodies.filter(|bodies| !bodies.is_empty()) else {
            return Answer::failed("400 Bad Request", "InvalidPart");
        };
        if bodies[..bodies.len() - 1].iter().any(|body| body.len() < PART_MIN) {
            return Answer::failed("400 Bad Request", "EntityTooSmall");
        }
        let whole = bodies.into_iter().flatten().copied().collect();
        self.uploads.remove(upload);
        let headers = self.store(key.to_owned(), whole);
        let etag = &headers[0].1;
        let body = format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>");
        Answer::new("200 OK", headers.clone(), body)
    }

    fn get(&self, key: &str, request: &Request) -> Answer {
        let Some(object) = self.objects.get(key) else { return Answer::failed("404 Not Found", "NoSuchKey") };
        let mut headers = headers_of(object);
        let Some(range) = request.header("range") else {
            return Answer { status: "200 OK", headers, body: Arc::clone(&object.body) };
        };
        let size = object.body.len();
        let bounds = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let (first, last) = match bounds {
            Some(("", last)) => (size.saturating_sub(last.parse().unwrap_or(0)), size),
            Some((first, "")) => (first.parse().unwrap_or(size), size),
            Some((first, last)) => {
                (first.parse().unwrap_or(size), last.parse().map_or(size, |last: usize| size.min(last + 1)))
            }
            None => (size, size),
        };
        if first >= last {
            return Answer::failed("416 Range Not Satisfiable", "InvalidRange");
        }
        headers.push(("content-range", format!("bytes {first}-{}/{size}", last - 1)));
        Answer::new("206 Partial Content", headers, &object.body[first..last])
    }

    fn list(&self, target: &Target) -> Answer {
        let asked = |name| target.asks(name).unwrap_or_default();
        let (prefix, delimiter) = (asked("prefix"), asked("delimiter"));
        let after = asked("start-after").max(asked("continuation-token"));
        let (mut entries, mut count, mut last, mut more) = (String::new(), 0, "", false);
        let mut folder = String::new();
        for (key, object) in &self.objects {
            if !key.starts_with(prefix) || key.as_str() <= after || (!folder.is_empty() && key.starts_with(&folder)) {
                continue;
            }
            let cut = (!delimiter.is_empty()).then(|| key[prefix.len()..].find(delimiter)).flatten();
            let group = cut.map(|at| &key[..prefix.len() + at + delimiter.len()]);
            if group.is_some_and(|group| after.starts_with(group)) {
                continue;
            }
            if count == PAGE {
                more = true;
                break;
            }
            count += 1;
            last = key;
            match group {
                Some(group) => {
                    folder = group.to_owned();
                    entries.push_str(&format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
                }
                None => entries.push_str(&format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size><ETag>\"{}\"</ETag><LastModified>{}</LastModified></Contents>",
                    object.body.len(),
                    object.generation,
                    object.written
                )),
            }
        }
        let token = if more { format!("<NextContinuationToken>{last}</NextContinuationToken>") } else { String::new() };
        Answer::xml(&format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{entries}{token}</ListBucketResult>"))
    }
}

fn gone(was: bool) -> Answer {
    if was { Answer::new("204 No Content", Vec::new(), "") } else { Answer::failed("404 Not Found", "NoSuchKey") }
}

fn headers_of(object: &Object) -> Headers {
    let written = jiff::Timestamp::from_microsecond(object.written.0).unwrap_or_default();
    vec![
        ("etag", format!("\"{}\"", object.generation)),
        ("x-goog-generation", object.generation.to_string()),
        ("last-modified", written.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()),
    ]
}
