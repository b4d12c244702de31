//! Where in the traced programs events come from: Babeltrace's `filter.lttng-utils.debug-info`.
//!
//! Events whose common context has an `ip` and a `vpid` get a structure beside them: the binary and
//! the place in it, the function, the line of source, each empty when it is not known. What a
//! process had mapped is taken from the state dump and loader events of LTTng-UST in the same
//! trace; the files are looked for on this machine. All other messages pass as they are.

mod object;
mod process;

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use sillage_ctf::model::{FieldClass, FieldKind, Stream, StreamClass, Trace, TraceClass};
use sillage_ctf::writer::{ExtendedStream, with_common_member};
use sillage_ctf::{Event, Field, Message, Value};

use crate::{Error, Messages, Status, Warning};
use process::{Files, Places, Process, Texts};

/// Where separate debug information is kept.
const DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// How to look for debug information.
#[derive(Debug, Clone)]
pub struct DebugInfoOptions {
    /// Name of the structure.
    pub field_name: String,
    /// Directory of separate debug information.
    pub debug_directory: Option<PathBuf>,
    /// Directory in which the traced system's files are found here.
    pub target_prefix: Option<PathBuf>,
    /// Tell whole paths, not only names of files.
    pub full_path: bool,
}

impl Default for DebugInfoOptions {
    fn default() -> Self {
        Self {
            field_name: "debug_info".to_owned(),
            debug_directory: None,
            target_prefix: None,
            full_path: false,
        }
    }
}

/// A stream of the source: as it is passed on.
#[derive(Debug)]
struct Known {
    /// As the source tells it.
    source: Arc<Trace>,
    index: usize,
    /// With the new class; none for streams that stay as they are.
    extended: Option<ExtendedStream>,
}

/// What the current message is passed on as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    AsIs,
    /// Another message of the stream at this place in the list.
    Renamed(usize),
    /// An event of that stream, extended.
    Extended(usize),
}

/// Messages with debug information.
#[derive(Debug)]
pub struct DebugInfo<M> {
    messages: M,
    field_name: String,
    places: Places,
    streams: Vec<Known>,
    /// New traces, by the source's.
    traces: Vec<(Arc<Trace>, Arc<Trace>)>,
    /// By trace number and process id.
    processes: HashMap<(usize, i64), Process>,
    files: Files,
    form: Form,
}

impl<M: Messages> DebugInfo<M> {
    /// Adds debug information to these messages.
    pub fn new(messages: M, options: DebugInfoOptions) -> Self {
        Self {
            messages,
            field_name: options.field_name,
            places: Places {
                full_path: options.full_path,
                target_prefix: options.target_prefix,
                debug_directory: options.debug_directory.unwrap_or_else(|| DEBUG_DIRECTORY.into()),
            },
            streams: Vec::new(),
            traces: Vec::new(),
            processes: HashMap::new(),
            files: Files::default(),
            form: Form::AsIs,
        }
    }

    /// Decides how the source's current message is passed on.
    fn take_up(&mut self) -> Result<(), Error> {
        self.form = Form::AsIs;
        let Some(message) = self.messages.current() else {
            return Ok(());
        };
        let stream = message.stream();
        let find = |known: &Known| known.index == stream.index && Arc::ptr_eq(&known.source, &stream.trace);
        let place = match self.streams.iter().position(find) {
            Some(place) => place,
            None => {
                let known = enter(stream, &self.field_name, &mut self.traces);
                self.streams.push(known);
                self.streams.len() - 1
            }
        };
        let Some(extended) = &mut self.streams[place].extended else {
            return Ok(());
        };
        self.form = Form::Renamed(place);
        let Message::Event(event) = &message else {
            return Ok(());
        };
        let texts = place_of(event, &mut self.processes, &mut self.files, &self.places);
        let values = [texts.bin.as_bytes(), texts.func.as_bytes(), texts.src.as_bytes()];
        extended.extend(event, &values).map_err(|source| Error::Decode {
            path: stream.name.clone().unwrap_or_default().into(),
            packet: 0,
            offset_bytes: 0,
            source,
        })?;
        self.form = Form::Extended(place);
        Ok(())
    }
}

/// A stream that is seen for the first time, or whose class has grown.
fn enter(stream: &Stream, field_name: &str, traces: &mut Vec<(Arc<Trace>, Arc<Trace>)>) -> Known {
    let known = Known { source: Arc::clone(&stream.trace), index: stream.index, extended: None };
    if !is_wanted(&stream.class, field_name) {
        return known;
    }
    let trace = match traces.iter().find(|(source, _)| Arc::ptr_eq(source, &stream.trace)) {
        Some((_, trace)) => Arc::clone(trace),
        None => {
            let class = extended_class(&stream.trace.class, field_name);
            let trace = Arc::new(Trace { class: Arc::new(class), ..(*stream.trace).clone() });
            traces.push((Arc::clone(&stream.trace), Arc::clone(&trace)));
            trace
        }
    };
    let Some(class) = trace.class.stream_class(stream.class.id).map(Arc::clone) else {
        return known;
    };
    let new = Stream { trace, class, ..stream.clone() };
    Known { extended: Some(ExtendedStream::new(stream, Arc::new(new))), ..known }
}

fn extended_class(class: &TraceClass, field_name: &str) -> TraceClass {
    with_common_member(class, |stream| is_wanted(stream, field_name), field_name, &["bin", "func", "src"])
}

/// Whether the events say where and in which process they happened, and no more.
fn is_wanted(class: &StreamClass, field_name: &str) -> bool {
    let integer = |name: &str, signed: bool| {
        let member = class.common_context.as_deref().and_then(FieldClass::as_struct)?.member(name)?;
        match &member.class.kind {
            FieldKind::Integer(integer) => Some(integer.signed == signed),
            _ => None,
        }
    };
    let common = class.common_context.as_deref().and_then(FieldClass::as_struct);
    integer("ip", false) == Some(true)
        && integer("vpid", true) == Some(true)
        && common.is_some_and(|common| common.member(field_name).is_none())
}

/// Takes up what the event tells of its process, then looks up where the event itself is.
fn place_of(
    event: &Event<'_>,
    processes: &mut HashMap<(usize, i64), Process>,
    files: &mut Files,
    places: &Places,
) -> Rc<Texts> {
    let Some(context) = event.common_context() else {
        return Rc::default();
    };
    let number = |name: &str| context.get(name);
    let (Some(process), Some(address)) =
        (number("vpid").and_then(|f| f.as_i64()), number("ip").and_then(|f| f.as_u64()))
    else {
        return Rc::default();
    };
    let process = processes.entry((event.stream.trace.index, process)).or_default();
    learn(event, process, places);
    process.look_up(address, files, places)
}

/// State dump and loader events of LTTng-UST, by their names in all of its versions.
fn learn(event: &Event<'_>, process: &mut Process, places: &Places) {
    let name = event.name();
    if !name.starts_with("lttng_ust_") {
        return;
    }
    if name == "lttng_ust_statedump:start" {
        return process.forget();
    }
    let Some(payload) = event.payload() else {
        return;
    };
    let number = |name: &str| payload.get(name).and_then(|field| field.as_u64());
    let text = |name: &str| payload.get(name).and_then(|field| field.as_str());
    let Some(base) = number("baddr") else {
        return;
    };
    match name {
        "lttng_ust_statedump:bin_info" | "lttng_ust_lib:load" | "lttng_ust_dl:dlopen" => {
            if let (Some(size), Some(path)) = (number("memsz"), text("path")) {
                // A library that is loaded at run time is always position-independent.
                let is_pic = name != "lttng_ust_statedump:bin_info" || number("is_pic") != Some(0);
                process.map(base, size, path, is_pic);
            }
        }
        "lttng_ust_lib:unload" | "lttng_ust_dl:dlclose" => process.unmap(base),
        "lttng_ust_statedump:build_id" | "lttng_ust_lib:build_id" => {
            if let Some(id) = payload.get("build_id") {
                process.set_build_id(base, bytes(&id), places);
            }
        }
        "lttng_ust_statedump:debug_link" | "lttng_ust_lib:debug_link" => {
            if let (Some(file), Some(checksum)) = (text("filename"), number("crc")) {
                process.set_debug_link(base, file.to_owned(), checksum as u32);
            }
        }
        _ => {}
    }
}

/// The bytes of an array of numbers or of a BLOB.
fn bytes(field: &Field<'_>) -> Vec<u8> {
    match field.value() {
        Value::Blob(bytes) => bytes.to_vec(),
        _ => field.children().filter_map(|element| Some(element.as_u64()? as u8)).collect(),
    }
}

impl<M: Messages> Messages for DebugInfo<M> {
    fn advance(&mut self) -> Result<Status, Error> {
        let status = self.messages.advance()?;
        if status == Status::Ready {
            self.take_up()?;
        }
        Ok(status)
    }

    fn current(&self) -> Option<Message<'_>> {
        let mut message = self.messages.current()?;
        let place = match self.form {
            Form::AsIs => return Some(message),
            Form::Extended(place) => {
                let extended = self.streams[place].extended.as_ref()?;
                return extended.event(message.clock()).map(Message::Event);
            }
            Form::Renamed(place) => place,
        };
        let stream = &**self.streams[place].extended.as_ref()?.stream();
        match &mut message {
            Message::StreamBegin(m) | Message::StreamEnd(m) | Message::Inactivity(m) => m.stream = stream,
            Message::PacketBegin(m) | Message::PacketEnd(m) => m.stream = stream,
            Message::DiscardedEvents(m) | Message::DiscardedPackets(m) => m.stream = stream,
            Message::Event(_) => {}
        }
        Some(message)
    }

    fn take_warnings(&mut self) -> Vec<Warning> {
        self.messages.take_warnings()
    }
}
