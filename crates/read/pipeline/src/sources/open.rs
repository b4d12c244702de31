//! From paths to logical traces and their streams.
//!
//! Directories of one identity (UUID; in CTF 2 namespace, name and uid) are one trace: rotation
//! chunks and snapshots come together here. Files are grouped into streams by stream class and
//! instance id; files without both an instance id and begin times are streams of their own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sillage_ctf::model::{CtfVersion, Stream, Trace, TraceClass};
use sillage_ctf::{MetadataOptions, MetadataReader, PacketInfo};

use super::bytes::{Access, HEAD_SIZE_BYTES, StreamFile};
use super::columns::ColumnReader;
use super::discover::{stream_files, trace_directories};
use super::mux::{Muxer, SliceRange};
use super::packets::{FilePackets, StreamPart, file_range, last_event_clock, spread};
use super::quirks::Quirks;
use super::stream::StreamReader;
use crate::{Error, Warning};

/// How to open traces.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How to read metadata.
    pub metadata: MetadataOptions,
    /// How to get at the files' bytes.
    pub access: Access,
    /// Name to give to the trace, in the place of what host name and path give.
    pub trace_name: Option<String>,
}

/// Opened traces: what there is to read, not yet read.
#[derive(Debug)]
pub struct Source {
    traces: Vec<Arc<Trace>>,
    streams: Vec<SourceStream>,
    warnings: Vec<Warning>,
    access: Access,
    directories: Vec<PathBuf>,
}

/// A stream and its files.
#[derive(Debug, Clone)]
struct SourceStream {
    stream: Arc<Stream>,
    parts: Arc<[StreamPart]>,
    quirks: Quirks,
}

/// Begin and end of a stream, in nanoseconds from the origin.
#[derive(Debug, Clone)]
pub struct StreamRange {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Begin of its first and end of its last packet; `None` when packets have no times.
    pub ns: Option<(i64, i64)>,
}

/// Opens the trace, or all traces, at or below a path.
///
/// # Errors
/// An unreadable path, bad metadata, bad packet heads, or no trace at all.
pub fn open(path: impl AsRef<Path>) -> Result<Source, Error> {
    open_all(&[path.as_ref().to_path_buf()], &Options::default())
}

/// Opens the traces at or below several paths as one source.
///
/// # Errors
/// As [`open`].
pub fn open_all(roots: &[PathBuf], options: &Options) -> Result<Source, Error> {
    let mut source = Source {
        traces: Vec::new(),
        streams: Vec::new(),
        warnings: Vec::new(),
        access: options.access,
        directories: Vec::new(),
    };
    let mut logical: Vec<Logical> = Vec::new();
    let mut known: HashMap<Identity, usize> = HashMap::new();
    for root in roots {
        let directories = trace_directories(root)?;
        if directories.is_empty() {
            return Err(Error::NoTrace(root.clone()));
        }
        for directory in directories {
            if source.directories.contains(&directory) {
                continue;
            }
            let part = Directory::read(root, &directory, options, &mut source.warnings)?;
            let identity = identity(&part.class);
            let place = match identity.as_ref().and_then(|id| known.get(id)) {
                Some(place) => *place,
                None => {
                    logical.push(Logical::default());
                    logical.len() - 1
                }
            };
            if let Some(identity) = identity {
                known.insert(identity, place);
            }
            logical[place].directories.push(part);
            source.directories.push(directory);
        }
    }
    for logical in logical {
        logical.into_source(&mut source)?;
    }
    source.rank();
    Ok(source)
}

/// What makes directories one trace.
type Identity = (Option<String>, Option<String>, String);

fn identity(class: &TraceClass) -> Option<Identity> {
    if let Some(uid) = &class.uid {
        return Some((class.namespace.clone(), class.name.clone(), uid.clone()));
    }
    match class.version {
        CtfVersion::V1_8 => class.uuid.map(|uuid| (None, None, uuid.to_string())),
        CtfVersion::V2 => None,
    }
}

/// One directory with its metadata.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    class: Arc<TraceClass>,
    name: String,
}

/// The directories of one trace.
#[derive(Debug, Default)]
struct Logical {
    directories: Vec<Directory>,
}

/// Files of one stream, in the making.
#[derive(Debug)]
struct Group {
    class_id: u64,
    instance: Option<u64>,
    parts: Vec<StreamPart>,
}

impl Directory {
    fn read(root: &Path, path: &Path, options: &Options, warnings: &mut Vec<Warning>) -> Result<Self, Error> {
        let file = path.join("metadata");
        let bytes = std::fs::read(&file).map_err(|error| Error::io(&file, error))?;
        let mut reader = MetadataReader::new(options.metadata);
        let result = reader.push_file(&bytes).and_then(|()| reader.snapshot());
        let told = reader.take_warnings().into_iter();
        warnings.extend(told.map(|warning| Warning::Metadata { path: Some(file.clone()), warning }));
        let class = result.map_err(|source| Error::Metadata { path: file, source })?;
        let name = options.trace_name.clone().unwrap_or_else(|| trace_name(root, path, &class));
        Ok(Self { path: path.to_path_buf(), class, name })
    }
}

/// Host name and the path below the given root.
fn trace_name(root: &Path, path: &Path, class: &TraceClass) -> String {
    let below = path.strip_prefix(root).unwrap_or(Path::new("")).to_string_lossy().into_owned();
    match class.env_text("hostname") {
        Some(host) if below.is_empty() => host.to_owned(),
        Some(host) => format!("{host}/{below}"),
        None => below,
    }
}

impl Logical {
    /// The name of its directory; of several, which differ in their paths, what they have in common:
    /// the host.
    fn name(&self) -> Option<String> {
        let (first, others) = self.directories.split_first()?;
        if others.iter().all(|other| other.name == first.name) {
            return Some(first.name.clone());
        }
        Some(trace_name(&first.path, &first.path, &first.class))
    }

    /// Sorts the files into streams and adds all to the source.
    fn into_source(self, source: &mut Source) -> Result<(), Error> {
        // The metadata that knows most is that of all: chunks share their classes.
        let Some(best) = self.directories.iter().reduce(|best, next| {
            let weight = |d: &Directory| d.class.stream_classes.len() + d.class.event_class_count();
            if weight(next) > weight(best) { next } else { best }
        }) else {
            return Ok(());
        };
        let trace =
            Arc::new(Trace { index: source.traces.len(), class: Arc::clone(&best.class), name: self.name() });
        let mut groups: Vec<Group> = Vec::new();
        for (number, directory) in self.directories.iter().enumerate() {
            for file in stream_files(&directory.path)? {
                add_file(&mut groups, &trace, file, number)?;
            }
        }
        groups.sort_by(|a, b| a.parts[0].path.cmp(&b.parts[0].path));
        source.traces.push(Arc::clone(&trace));
        let quirks = Quirks::of(&trace.class);
        let mut next_id = 0;
        for mut group in groups {
            let Some(class) = trace.class.stream_class(group.class_id) else {
                continue;
            };
            group.parts.sort_by(|a, b| a.begin.cmp(&b.begin).then_with(|| a.path.cmp(&b.path)));
            let id = group.instance.unwrap_or_else(|| {
                next_id += 1;
                next_id - 1
            });
            let first = std::path::absolute(&*group.parts[0].path);
            let name = first.unwrap_or_else(|_| group.parts[0].path.to_path_buf());
            source.streams.push(SourceStream {
                stream: Arc::new(Stream {
                    index: source.streams.len(),
                    trace: Arc::clone(&trace),
                    class: Arc::clone(class),
                    id,
                    name: Some(name.to_string_lossy().into_owned()),
                }),
                parts: group.parts.into(),
                quirks,
            });
        }
        Ok(())
    }
}

/// Puts a file into the stream that its first packet says.
fn add_file(
    groups: &mut Vec<Group>,
    trace: &Arc<Trace>,
    path: PathBuf,
    directory: usize,
) -> Result<(), Error> {
    let info = match first_packet(&path, &trace.class) {
        Ok(info) => info,
        // The error comes in its place when the stream is read, and hides no other stream.
        Err(error) => match trace.class.stream_classes.first() {
            Some(class) => PacketInfo { stream_class_id: class.id, ..PacketInfo::default() },
            None => return Err(error),
        },
    };
    let part =
        StreamPart { path: Arc::new(path), begin: info.begin, class: Arc::clone(&trace.class), directory };
    let instance = info.stream_id.filter(|_| info.begin.is_some());
    let same = groups.iter_mut().find(|group| {
        instance.is_some() && group.instance == instance && group.class_id == info.stream_class_id
    });
    match same {
        Some(group) => group.parts.push(part),
        None => groups.push(Group { class_id: info.stream_class_id, instance, parts: vec![part] }),
    }
    Ok(())
}

/// Head of the first packet of a file.
fn first_packet(path: &Path, class: &TraceClass) -> Result<PacketInfo, Error> {
    // Opening thousands of files must not map each of them.
    let mut file = StreamFile::open(path, Access::Read)?;
    let mut len = HEAD_SIZE_BYTES.min(file.size_bytes());
    loop {
        file.load(path, 0, len)?;
        match PacketInfo::read(class, file.get(0, len)) {
            Ok(info) => {
                info.sizes(file.size_bytes()).map_err(|source| located(path, source))?;
                return Ok(info);
            }
            Err(source) if len >= file.size_bytes() => return Err(located(path, source)),
            Err(_) => len = len.saturating_mul(16).min(file.size_bytes()),
        }
    }
}

fn located(path: &Path, source: Box<sillage_ctf::DecodeError>) -> Error {
    Error::Decode { path: path.to_path_buf(), packet: 0, offset_bytes: 0, source }
}

impl Source {
    /// The traces.
    pub fn traces(&self) -> &[Arc<Trace>] {
        &self.traces
    }

    /// The streams, in the order of their rank: at equal times, the first comes first.
    pub fn streams(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.streams.iter().map(|stream| &stream.stream)
    }

    /// The directories that were opened.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Warnings of the metadata.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Files of the stream of this index.
    pub fn files(&self, stream_index: usize) -> impl Iterator<Item = &Path> {
        self.streams
            .iter()
            .find(|stream| stream.stream.index == stream_index)
            .into_iter()
            .flat_map(|stream| stream.parts.iter().map(|part| part.path.as_path()))
    }

    /// Orders the streams as Babeltrace's muxer does at equal times.
    fn rank(&mut self) {
        self.streams.sort_by(|a, b| {
            let key = |s: &SourceStream| {
                let stream = &s.stream;
                let class = &stream.trace.class;
                // In CTF 2 the UUID is that of the metadata, not of the trace.
                let uuid = class.uuid.filter(|_| class.version == CtfVersion::V1_8);
                (
                    (uuid, class.namespace.clone(), stream.trace.name.clone(), class.uid.clone()),
                    stream.class.id,
                    stream.id,
                    stream.name.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
    }

    fn readers(&self) -> Vec<StreamReader<FilePackets>> {
        self.streams.iter().map(|stream| self.reader(stream)).collect()
    }

    fn reader(&self, stream: &SourceStream) -> StreamReader<FilePackets> {
        let packets = FilePackets::new(Arc::clone(&stream.parts), self.access);
        StreamReader::new(Arc::clone(&stream.stream), packets, stream.quirks)
    }

    /// All messages, in the order of time.
    pub fn messages(&self) -> Muxer<FilePackets> {
        Muxer::new(self.readers())
    }

    /// The messages of one range of time. Together, the slices of [`slices`](Self::slices) give all
    /// messages once, so that each can be read on a thread of its own.
    ///
    /// # Errors
    /// A stream that can not be read.
    pub fn messages_in(&self, range: SliceRange) -> Result<Muxer<FilePackets>, Error> {
        Muxer::slice(self.readers(), range)
    }

    /// Bytes of all stream files, as far as they can be told.
    pub fn size_bytes(&self) -> u64 {
        let parts = self.streams.iter().flat_map(|stream| stream.parts.iter());
        parts.filter_map(|part| Some(std::fs::metadata(&*part.path).ok()?.len())).sum()
    }

    /// One muxer per stream, in the order of rank: for stream intersection, which trims before it
    /// merges, and for packet-wise work.
    pub fn messages_by_stream(&self) -> Vec<(Arc<Stream>, Muxer<FilePackets>)> {
        self.streams
            .iter()
            .map(|stream| (Arc::clone(&stream.stream), Muxer::new(vec![self.reader(stream)])))
            .collect()
    }

    /// Splits the time of all streams into at most `count` slices of about as many bytes each, or,
    /// where there are too few packets for that, of equal time; a single one when the times are not
    /// known.
    ///
    /// # Errors
    /// A stream that can not be read.
    pub fn slices(&self, count: usize) -> Result<Vec<SliceRange>, Error> {
        let whole = vec![SliceRange::default()];
        if count <= 1 {
            return Ok(whole);
        }
        let ranges = self.stream_ranges()?;
        let known: Option<Vec<(i64, i64)>> = ranges.iter().map(|range| range.ns).collect();
        let span = known.and_then(|ranges| {
            let begin = ranges.iter().map(|(begin, _)| *begin).min()?;
            let end = ranges.iter().map(|(_, end)| *end).max()?;
            (end > begin).then_some((begin, end))
        });
        let Some((begin, end)) = span else {
            return Ok(whole);
        };
        let mut cuts = self.cuts_by_bytes(count)?;
        if cuts.len() + 1 < count {
            let step = i128::from(end) - i128::from(begin);
            let cut = |at: usize| i64::try_from(i128::from(begin) + step * at as i128 / count as i128).ok();
            cuts = (1..count).filter_map(cut).collect();
        }
        let edges = |at: usize| at.checked_sub(1).and_then(|at| cuts.get(at)).copied();
        Ok((0..=cuts.len())
            .map(|at| SliceRange { from_ns: edges(at), to_ns: cuts.get(at).copied() })
            .collect())
    }

    /// Begins of packets that cut the bytes of all streams into equal parts, as far as there are such.
    fn cuts_by_bytes(&self, count: usize) -> Result<Vec<i64>, Error> {
        let mut places: Vec<(i64, u64)> = Vec::new();
        for stream in &self.streams {
            let Some(clock) = &stream.stream.class.clock else { return Ok(Vec::new()) };
            for part in stream.parts.iter() {
                let samples = spread(part, self.access)?;
                places.extend(
                    samples
                        .iter()
                        .filter_map(|(begin, size_bytes)| Some((clock.ns_from_origin(*begin)?, *size_bytes))),
                );
            }
        }
        places.sort_unstable();
        let total = places.iter().map(|place| u128::from(place.1)).sum::<u128>();
        let mut cuts: Vec<i64> = Vec::new();
        let mut before = 0;
        for (ns, size_bytes) in places {
            let due = total * (cuts.len() as u128 + 1) / count as u128;
            if before >= due && before > 0 && cuts.len() + 1 < count && cuts.last() != Some(&ns) {
                cuts.push(ns);
            }
            before += u128::from(size_bytes);
        }
        Ok(cuts)
    }

    /// The streams, each to be read in batches of columns, in the order of their rank.
    ///
    /// ```
    /// # use std::io::Write as _;
    /// # let directory = std::env::temp_dir().join(format!("sillage-columns-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// # std::fs::write(directory.join("metadata"), "/* CTF 1.8 */
    /// #     trace { major = 1; minor = 8; byte_order = le; };
    /// #     clock { name = c; freq = 1000000000; };
    /// #     stream { event.header := struct {
    /// #         integer { size = 64; align = 8; map = clock.c.value; } timestamp; }; };
    /// #     event { name = read; fields := struct {
    /// #         integer { size = 32; align = 8; signed = true; } size; string file; }; };")?;
    /// # let mut file = std::fs::File::create(directory.join("stream"))?;
    /// # for n in 0..1000_i32 {
    /// #     file.write_all(&(n as u64 * 7).to_le_bytes())?;
    /// #     file.write_all(&n.to_le_bytes())?;
    /// #     file.write_all(b"log\0")?;
    /// # }
    /// use sillage_pipeline::ctf::{Picked, model::Scope};
    ///
    /// let source = sillage_pipeline::open(&directory)?;
    /// let (mut rows, mut sizes, mut last_ns) = (Vec::new(), Vec::new(), 0);
    /// for mut reader in source.columns() {
    ///     let class = reader.stream().class.clone();
    ///     let size = Picked::new(&class, 0, Scope::Payload, "size").ok_or("no such field")?;
    ///     while let Some(batch) = reader.next_batch()? {
    ///         batch.columns.integers(&size, &mut rows, &mut sizes);
    ///         last_ns = batch.times_ns[batch.columns.len() - 1];
    ///     }
    /// }
    /// assert_eq!(sizes.iter().sum::<i64>(), 499_500);
    /// assert_eq!((rows.len(), last_ns), (1000, 999 * 7));
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn columns(&self) -> Vec<ColumnReader<FilePackets>> {
        self.readers().into_iter().map(ColumnReader::new).collect()
    }

    /// Begin and end of every stream, in the order of rank.
    ///
    /// # Errors
    /// A file that can not be read.
    pub fn stream_ranges(&self) -> Result<Vec<StreamRange>, Error> {
        self.streams
            .iter()
            .map(|stream| Ok(StreamRange { stream: Arc::clone(&stream.stream), ns: self.range_of(stream)? }))
            .collect()
    }

    fn range_of(&self, stream: &SourceStream) -> Result<Option<(i64, i64)>, Error> {
        let Some(clock) = &stream.stream.class.clock else {
            return Ok(None);
        };
        let mut whole: Option<(u64, u64)> = None;
        for (at, part) in stream.parts.iter().enumerate() {
            let last_part = at + 1 == stream.parts.len();
            if at > 0 && !last_part {
                continue;
            }
            let Some((first, last, offset)) = file_range(part, self.access)? else {
                continue;
            };
            let (Some(begin), Some(mut end)) = (first.begin, last.end) else {
                return Ok(None);
            };
            if stream.quirks.event_after_packet || (stream.quirks.crash_end && end == 0) {
                let clock = last_event_clock(part, self.access, offset)?;
                end = clock.or(last.begin).unwrap_or(end);
            }
            whole = Some(match whole {
                Some((b, e)) => (b.min(begin), e.max(end)),
                None => (begin, end),
            });
        }
        Ok(whole.and_then(|(begin, end)| Some((clock.ns_from_origin(begin)?, clock.ns_from_origin(end)?))))
    }
}
