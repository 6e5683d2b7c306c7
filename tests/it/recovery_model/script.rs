//! What happens in a case: a setting and a list of steps. Numbers in steps are taken modulo what
//! there is, so that any list is a script and shrinking may leave steps out.

use proptest::{collection::vec, prelude::*};

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) nodes: usize,
    pub(crate) shards: u16,
    pub(crate) replicas: usize,
    /// The class of each channel.
    pub(crate) channels: Vec<Class>,
    pub(crate) clients: usize,
    /// All clients are subscribed to everything from the beginning.
    pub(crate) eager: bool,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Keeps everything for half an hour.
    Std,
    /// Keeps four messages of a channel.
    Few,
    /// Keeps 700 bytes of a shard: about seven messages.
    Tight,
}

/// What goes wrong with one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    LoseAck,
    CrashBeforeRepublish,
    Refuse,
}

/// With what a client subscribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// What it knows; afresh if it knows nothing.
    Own,
    /// Nothing.
    Fresh,
    /// "Nothing yet, of whatever epoch": everything there ever was.
    FromZero,
    /// An offset that does not exist yet. Never proof.
    Future,
    /// Its offset without an epoch. Never proof.
    NoEpoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Read,
    ReadLeader,
    Info,
    LastOf,
    Subscribe,
    TimeAt,
    Epoch,
    SetEpoch,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Publish {
        channel: usize,
        node: usize,
        key: Option<u8>,
        trouble: Option<Trouble>,
    },
    Burst {
        channel: usize,
        node: usize,
        count: u8,
        padding: u8,
    },
    Subscribe {
        client: usize,
        channel: usize,
        node: usize,
        claim: Claim,
    },
    Leave {
        client: usize,
        channel: usize,
    },
    /// The client's connection breaks; it is back later with [`Step::Subscribe`].
    HangUp {
        client: usize,
    },
    /// From here on the client reads only when told.
    Slow {
        client: usize,
        slow: bool,
    },
    Drain {
        client: usize,
    },
    /// Milliseconds, in which everything goes on.
    Wait(u16),
    DropCopies {
        node: usize,
        channel: usize,
        count: u8,
    },
    RepeatCopies {
        node: usize,
        channel: usize,
        count: u8,
    },
    HoldCopies {
        node: usize,
        channel: usize,
    },
    ReleaseCopies,
    ReplayCopy {
        channel: usize,
        back: u8,
    },
    HoldReplica {
        channel: usize,
        replica: usize,
    },
    ReleaseReplica {
        channel: usize,
        replica: usize,
    },
    AnswerFrom {
        channel: usize,
        replica: Option<usize>,
    },
    Depose {
        channel: usize,
        replica: Option<usize>,
    },
    Skew {
        channel: usize,
        replica: usize,
        ms: i16,
    },
    Fail {
        node: usize,
        ask: Ask,
        count: u8,
    },
    HoldAnswers {
        node: usize,
        ask: Ask,
    },
    HoldAcks {
        node: usize,
    },
    ReleaseAnswers,
    LoseNodeMessages {
        count: u8,
    },
    Disconnect {
        node: usize,
    },
    Reconnect {
        node: usize,
    },
    ElectLeader {
        channel: usize,
    },
    RestartNode {
        node: usize,
        drained: bool,
    },
    /// Time passes faster than anybody looks: beyond max_age.
    Jump {
        seconds: u16,
    },
    Remove {
        channel: usize,
        node: usize,
    },
    Trim {
        channel: usize,
        keep: u8,
    },
    Unreadable {
        channel: usize,
        malformed: bool,
    },
    /// The stream is deleted and created.
    Recreate {
        channel: usize,
    },
    /// The stream loses its last messages; how the nodes get to know.
    Regress {
        channel: usize,
        by: u8,
        notice: Notice,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Reconnect,
    Check,
    Publish,
}

pub(crate) fn scripts() -> impl Strategy<Value = Script> {
    let class = prop_oneof![5 => Just(Class::Std), 2 => Just(Class::Few), 2 => Just(Class::Tight)];
    (
        1..=3_usize,
        1..=2_u16,
        prop_oneof![Just(1_usize), Just(3)],
        vec(class, 1..=3),
        1..=4_usize,
        (any::<bool>(), any::<bool>()),
    )
        .prop_flat_map(|(nodes, shards, replicas, channels, clients, (gentle, eager))| {
            vec(step(gentle), 1..60).prop_map(move |steps| Script {
                nodes,
                shards,
                replicas,
                channels: channels.clone(),
                clients,
                eager,
                steps,
            })
        })
}

/// A gentle script takes nothing away that was stored: then nobody may be told anything.
fn step(gentle: bool) -> BoxedStrategy<Step> {
    let safe = prop_oneof![
        12 => publish(),
        4 => (0..3_usize, 0..3_usize, 1..9_u8, 0..200_u8)
            .prop_map(|(channel, node, count, padding)| Step::Burst { channel, node, count, padding }),
        10 => (0..4_usize, 0..3_usize, 0..3_usize, claim())
            .prop_map(|(client, channel, node, claim)| Step::Subscribe { client, channel, node, claim }),
        2 => (0..4_usize, 0..3_usize).prop_map(|(client, channel)| Step::Leave { client, channel }),
        4 => (0..4_usize).prop_map(|client| Step::HangUp { client }),
        2 => (0..4_usize, any::<bool>()).prop_map(|(client, slow)| Step::Slow { client, slow }),
        2 => (0..4_usize).prop_map(|client| Step::Drain { client }),
        8 => prop_oneof![1..100_u16, 1..3_000_u16, 1..15_000_u16].prop_map(Step::Wait),
        8 => copies(),
        5 => replicas(),
        6 => answers(),
        5 => nodes(),
    ];
    if gentle {
        safe.boxed()
    } else {
        prop_oneof![12 => safe, 2 => losses()].boxed()
    }
}

fn publish() -> impl Strategy<Value = Step> {
    let trouble = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Trouble::LoseAck)),
        1 => Just(Some(Trouble::CrashBeforeRepublish)),
        1 => Just(Some(Trouble::Refuse)),
    ];
    (0..3_usize, 0..3_usize, proptest::option::of(0..4_u8), trouble).prop_map(
        |(channel, node, key, trouble)| Step::Publish {
            channel,
            node,
            key,
            trouble,
        },
    )
}

fn claim() -> impl Strategy<Value = Claim> {
    prop_oneof![
        12 => Just(Claim::Own),
        2 => Just(Claim::Fresh),
        2 => Just(Claim::FromZero),
        1 => Just(Claim::Future),
        1 => Just(Claim::NoEpoch),
    ]
}

fn copies() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..3_usize, 1..4_u8)
            .prop_map(|(node, channel, count)| Step::DropCopies { node, channel, count }),
        2 => (0..3_usize, 0..3_usize, 1..4_u8)
            .prop_map(|(node, channel, count)| Step::RepeatCopies { node, channel, count }),
        3 => (0..3_usize, 0..3_usize).prop_map(|(node, channel)| Step::HoldCopies { node, channel }),
        3 => Just(Step::ReleaseCopies),
        2 => (0..3_usize, 0..6_u8).prop_map(|(channel, back)| Step::ReplayCopy { channel, back }),
    ]
}

fn replicas() -> impl Strategy<Value = Step> {
    let replica = || 1..=2_usize;
    prop_oneof![
        2 => (0..3_usize, replica()).prop_map(|(channel, replica)| Step::HoldReplica { channel, replica }),
        1 => (0..3_usize, replica()).prop_map(|(channel, replica)| Step::ReleaseReplica { channel, replica }),
        2 => (0..3_usize, proptest::option::of(replica()))
            .prop_map(|(channel, replica)| Step::AnswerFrom { channel, replica }),
        1 => (0..3_usize, proptest::option::of(replica()))
            .prop_map(|(channel, replica)| Step::Depose { channel, replica }),
        1 => (0..3_usize, replica(), -4_000..4_000_i16)
            .prop_map(|(channel, replica, ms)| Step::Skew { channel, replica, ms }),
    ]
}

fn answers() -> impl Strategy<Value = Step> {
    let ask = || {
        prop_oneof![
            3 => Just(Ask::Read),
            1 => Just(Ask::ReadLeader),
            2 => Just(Ask::Info),
            2 => Just(Ask::LastOf),
            1 => Just(Ask::Subscribe),
            1 => Just(Ask::TimeAt),
            1 => Just(Ask::Epoch),
            1 => Just(Ask::SetEpoch),
        ]
    };
    prop_oneof![
        3 => (0..3_usize, ask(), 1..5_u8).prop_map(|(node, ask, count)| Step::Fail { node, ask, count }),
        3 => (0..3_usize, ask()).prop_map(|(node, ask)| Step::HoldAnswers { node, ask }),
        1 => (0..3_usize).prop_map(|node| Step::HoldAcks { node }),
        3 => Just(Step::ReleaseAnswers),
        1 => (1..4_u8).prop_map(|count| Step::LoseNodeMessages { count }),
    ]
}

fn nodes() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3_usize).prop_map(|node| Step::Disconnect { node }),
        3 => (0..3_usize).prop_map(|node| Step::Reconnect { node }),
        1 => (0..3_usize).prop_map(|channel| Step::ElectLeader { channel }),
        2 => (0..3_usize, any::<bool>()).prop_map(|(node, drained)| Step::RestartNode { node, drained }),
    ]
}

fn losses() -> impl Strategy<Value = Step> {
    let notice = prop_oneof![
        Just(Notice::Reconnect),
        Just(Notice::Check),
        Just(Notice::Publish)
    ];
    prop_oneof![
        2 => prop_oneof![1..60_u16, 1_790..1_900_u16].prop_map(|seconds| Step::Jump { seconds }),
        3 => (0..3_usize, 0..3_usize).prop_map(|(channel, node)| Step::Remove { channel, node }),
        2 => (0..3_usize, 0..5_u8).prop_map(|(channel, keep)| Step::Trim { channel, keep }),
        1 => (0..3_usize, any::<bool>())
            .prop_map(|(channel, malformed)| Step::Unreadable { channel, malformed }),
        1 => (0..3_usize).prop_map(|channel| Step::Recreate { channel }),
        1 => (0..3_usize, 1..6_u8, notice)
            .prop_map(|(channel, by, notice)| Step::Regress { channel, by, notice }),
    ]
}
