//! Tables: operations of a provider, generated from its own descriptions by `cargo xtask catalog`.
//!
//! A compressed text, one operation a line: `id⇥call⇥class`. It is read when the first request to the provider comes.

use std::{collections::HashMap, io::Read as _, sync::OnceLock};

use flate2::read::GzDecoder;

use crate::{
    class::Class,
    rest::{Matched, Routes},
};

/// The generated operations of one provider; empty for one without.
#[derive(Debug, Default)]
pub(crate) struct Table {
    compressed: &'static [u8],
    read: OnceLock<Read>,
}

#[derive(Debug, Default)]
struct Read {
    classes: HashMap<String, Class>,
    calls: HashMap<String, String>,
    routes: Routes,
}

impl Table {
    pub(crate) fn new(compressed: &'static [u8]) -> Self {
        Self { compressed, read: OnceLock::new() }
    }

    /// The operation of a method and path.
    pub(crate) fn find(&self, method: &str, segments: &[String]) -> Option<Matched> {
        self.read().routes.find(method, segments)
    }

    pub(crate) fn class(&self, id: &str) -> Option<Class> {
        self.read().classes.get(id).cloned()
    }

    /// Every operation: its id, its call and its class.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (&str, &str, &Class)> {
        let read = self.read();
        read.calls.iter().filter_map(|(id, call)| read.classes.get(id).map(|class| (id.as_str(), call.as_str(), class)))
    }

    fn read(&self) -> &Read {
        self.read.get_or_init(|| {
            let mut text = String::new();
            // What can't be read is in no catalog, so it is held; a test reads every table that is compiled in.
            if self.compressed.is_empty() || GzDecoder::new(self.compressed).read_to_string(&mut text).is_err() {
                return Read::default();
            }
            let mut read = Read::default();
            for line in text.lines() {
                let mut fields = line.split('\t');
                let (Some(id), Some(call), Some(class)) =
                    (fields.next(), fields.next(), fields.next().and_then(|class| class.parse::<Class>().ok()))
                else {
                    continue;
                };
                if !call.is_empty() && read.routes.add(call, id, Some(class.clone())).is_err() {
                    continue;
                }
                read.calls.insert(id.to_owned(), call.to_owned());
                read.classes.insert(id.to_owned(), class);
            }
            read
        })
    }
}
