//! A worker with a keeper that only listens: what it would have for the next worker, at any moment.

use super::*;
use crate::model::{Channel, Holder, Origin, RingSet};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sillage_consumer::Counters;
use sillage_consumer::fake::{FakePages, FakeProducer};
use sillage_model::{ChannelSettings, Domain};

const SET: u64 = 77;
const LOST: u64 = 100;

/// A worker on a directory of its own, and the keeper's end of its link.
fn worker(name: &str, inheritance: Inheritance) -> (Daemon, OwnedFd) {
    let dir = std::env::temp_dir().join(format!("sillage-worker-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    let daemon = Daemon::new(theirs, &dir, &["no", "keeper"], inheritance).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    (daemon, ours)
}

/// What a keeper holds.
#[derive(Default)]
struct Kept {
    items: HashMap<Key, Vec<OwnedFd>>,
    state: Option<OwnedFd>,
}

impl Kept {
    fn take(&mut self, message: Message) {
        match message {
            Message::Keep(key, fds) => drop(self.items.insert(key, fds)),
            Message::Drop(key) => drop(self.items.remove(&key)),
            Message::State(state) => self.state = Some(state),
            _ => {}
        }
    }

    /// What a worker that were started now would get.
    fn inheritance(&self) -> Inheritance {
        let copies = |fds: &Vec<OwnedFd>| fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
        Inheritance {
            items: self.items.iter().map(|(key, fds)| (*key, copies(fds))).collect(),
            state: self.state.as_ref().map(|state| state.try_clone().unwrap()),
            restarts: 1,
        }
    }
}

/// Everything that was sent so far.
fn messages(link: &OwnedFd) -> Vec<Message> {
    let mut found = Vec::new();
    loop {
        let mut fds = [rustix::event::PollFd::new(link, rustix::event::PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&Default::default())).unwrap() == 0 {
            return found;
        }
        found.extend(link::receive(link).unwrap());
    }
}

/// Gives the worker a session whose only ring belongs to the program `program` and lost [`LOST`] records.
fn record_and_lose(daemon: &mut Daemon, program: u64) {
    let settings = ChannelSettings { subbuf_bytes: 4096, subbuf_count: 2, ..ChannelSettings::default() };
    let mut channel = Channel::new(5, "c".into(), Domain::User, 0, settings);
    let memory = Arc::new(RingMemory::create(channel.geometry(Kind::Locked, 1), SET).unwrap());
    daemon.keep(Key::Set(SET), &memory.for_keeping());
    let doorbell = DoorbellMemory::create().unwrap();
    let pages = FakePages::map(
        &daemon.clock.for_programs().try_clone_to_owned().unwrap(),
        &doorbell.file().try_clone_to_owned().unwrap(),
    );
    let [set, words] = memory.for_programs().map(|fd| fd.try_clone_to_owned().unwrap());
    let producer = FakeProducer::map(&set, &words, &pages.unwrap()).unwrap();
    let lost = || memory.active().flat_map(|cpu| memory.lost(cpu)).sum::<u64>();
    while lost() < LOST {
        producer.emit(1, &[0; 1000]);
    }
    let uid = rustix::process::getuid().as_raw();
    channel.sets.push(RingSet {
        memory,
        counters: Arc::new(Counters::default()),
        origin: Origin::User(uid),
        holder: Holder::Process { pid: std::process::id(), program: Some(program) },
        first_number: 1,
        closing: false,
    });
    let session = Session {
        name: "s".into(),
        output: "/nowhere".into(),
        uid,
        gid: rustix::process::getgid().as_raw(),
        created: String::new(),
        active: true,
        started_once: true,
        destroying: false,
        channels: vec![channel],
        traces: BTreeMap::new(),
        clock_offset: None,
        unanswered: Vec::new(),
        record: 0,
        recorder: None,
        tracked: BTreeMap::new(),
    };
    daemon.sessions.insert(1, session);
    daemon.add_reader(Origin::User(uid), doorbell).unwrap();
    daemon.changed = true;
    daemon.turn_end();
}

/// Losses that a worker would find with what the keeper has, and what went wrong.
fn inherited(kept: &Kept) -> (u64, Vec<String>) {
    let mut from = kept.inheritance();
    let (_, sessions) = state::load(from.state.take().unwrap(), 1, |set_id, geometry| {
        let [set, words] = from.items.remove(&Key::Set(set_id))?.try_into().ok()?;
        RingMemory::adopt(set, words, geometry, set_id).ok().map(Arc::new)
    })
    .unwrap();
    let totals = sessions[&1].channels[0].totals();
    (totals.lost.iter().sum(), totals.troubles)
}

#[test]
fn a_kill_at_any_message_while_a_ring_set_is_forgotten_hides_no_loss() {
    let (mut daemon, keeper) = worker("forget", Inheritance::default());
    record_and_lose(&mut daemon, 99);
    let mut kept = Kept::default();
    messages(&keeper).into_iter().for_each(|message| kept.take(message));
    assert_eq!(inherited(&kept), (LOST, vec![]));
    // Its program ends.
    daemon.drop_private_sets(99);
    let deadline = Instant::now() + Duration::from_secs(20);
    while kept.items.contains_key(&Key::Set(SET)) {
        assert!(Instant::now() < deadline, "the set is kept for ever");
        for ticket in daemon.finished.take() {
            daemon.job_finished(ticket);
        }
        daemon.turn_end();
        for message in messages(&keeper) {
            kept.take(message);
            // Were the worker killed behind this message:
            assert_eq!(inherited(&kept), (LOST, vec![]));
        }
    }
    // And once more, by the next worker.
    let (next, _keeper) = worker("forget-2", kept.inheritance());
    assert_eq!(next.sessions[&1].channels[0].totals().lost.iter().sum::<u64>(), LOST);
}

#[test]
fn a_set_that_no_state_names_is_let_go_by_the_next_worker() {
    let (mut daemon, keeper) = worker("orphan", Inheritance::default());
    daemon.turn_end();
    let mut kept = Kept::default();
    messages(&keeper).into_iter().for_each(|message| kept.take(message));
    // Killed between the set's way to the keeper and the state's.
    let geometry =
        Channel::new(5, "c".into(), Domain::User, 0, ChannelSettings::default()).geometry(Kind::Locked, 1);
    let memory = RingMemory::create(geometry, SET).unwrap();
    let files = memory.for_keeping().map(|fd| fd.try_clone_to_owned().unwrap());
    kept.take(Message::Keep(Key::Set(SET), files.into()));
    let (mut next, keeper) = worker("orphan-2", kept.inheritance());
    next.turn_end();
    messages(&keeper).into_iter().for_each(|message| kept.take(message));
    assert!(!kept.items.contains_key(&Key::Set(SET)));
    assert!(kept.items.contains_key(&Key::ControlListener));
}
