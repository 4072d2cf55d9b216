//! What the tasks of a link share: who is responsible for what, and how it stands.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tracing::{info, warn};

use super::{
    Manner, Place, Poke, Status,
    connect::Connector,
    find::{Layout, Range},
    node::{Live, Node},
    slots::slot,
};

/// The primaries and what they are responsible for.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) nodes: Vec<Arc<Node>>,
    /// Sorted; the place in `nodes` behind each range.
    ranges: Vec<(Range, usize)>,
}

impl Routes {
    /// The place in `nodes` of who is responsible for a key.
    pub(super) fn of(&self, key: &[u8]) -> Option<usize> {
        if !self.is_split() {
            return if self.nodes.is_empty() { None } else { Some(0) };
        }
        let slot = slot(key);
        let after = self.ranges.partition_point(|((first, _), _)| *first <= slot);
        let ((_, last), node) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(*node)
    }

    /// The node at a place.
    pub(super) fn at(&self, place: &Place) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.place == *place)
    }

    fn is_split(&self) -> bool {
        self.ranges.len() > 1
    }
}

/// What the tasks of a link share.
pub(super) struct Hub {
    /// What people call the store.
    pub(super) store: String,
    pub(super) manner: Manner,
    pub(super) cluster: bool,
    pub(super) servers: Arc<Connector>,
    pub(super) channels: Vec<Vec<u8>>,
    pub(super) routes: ArcSwap<Routes>,
    pub(super) status: watch::Sender<Status>,
    /// Somebody saw that the layout is not what it was.
    pub(super) relayout: Notify,
    /// Somebody saw that the node of a cluster which told the layout may have been cut off from the others.
    pub(super) doubt: AtomicBool,
    pokes: mpsc::UnboundedSender<Poke>,
    /// The identities of the servers that anybody may ask; unset: all.
    admitted: Mutex<Option<BTreeSet<String>>>,
    edge: Mutex<Edge>,
}

/// When the store came or went last.
struct Edge {
    generation: u64,
    since: Instant,
    /// The log tells already that it is away.
    told: bool,
    why: String,
}

impl Hub {
    pub(super) fn new(
        store: String,
        manner: Manner,
        cluster: bool,
        servers: Arc<Connector>,
        channels: Vec<Vec<u8>>,
        pokes: mpsc::UnboundedSender<Poke>,
    ) -> Self {
        let why = "it was not reached yet".to_owned();
        Self {
            store,
            manner,
            cluster,
            servers,
            channels,
            routes: ArcSwap::default(),
            status: watch::Sender::new(Status::Down { why: why.clone() }),
            relayout: Notify::new(),
            doubt: AtomicBool::new(false),
            pokes,
            admitted: Mutex::new(None),
            edge: Mutex::new(Edge {
                generation: 0,
                since: Instant::now(),
                told: false,
                why,
            }),
        }
    }

    /// Tells the owner; if there is none any more, nobody.
    pub(super) fn poke(&self, poke: Poke) {
        let _ = self.pokes.send(poke);
    }

    /// From now on anybody may ask these servers, and no others.
    pub(super) fn admit(&self, servers: BTreeSet<String>) {
        *self.admitted.lock() = Some(servers);
        for live in self.routes.load().nodes.iter().filter_map(|node| node.live()) {
            self.check_in(&live);
        }
    }

    /// Whether anybody may ask a server.
    pub(super) fn check_in(&self, live: &Live) {
        let admitted = self.admitted.lock();
        let known = admitted
            .as_ref()
            .is_none_or(|known| known.contains(&live.server().identity()));
        live.admit(known);
    }

    /// A node is connected.
    pub(super) fn came(&self, node: &Node) {
        let mut edge = self.edge.lock();
        edge.generation += 1;
        if node.told.swap(false, Ordering::Relaxed) {
            info!(store = self.store, node = %node.place, "a primary of the store is back");
        }
        self.publish(&mut edge);
    }

    /// A node is lost, or could not be connected.
    pub(super) fn went(&self, node: &Node, why: &str) {
        let mut edge = self.edge.lock();
        why.clone_into(&mut edge.why);
        self.publish(&mut edge);
        let others_live = self.routes.load().nodes.iter().any(|node| node.live().is_some());
        if others_live && !node.told.swap(true, Ordering::Relaxed) {
            warn!(store = self.store, node = %node.place, why, "a primary of the store went away");
        }
    }

    /// Nobody can say who the primaries are.
    pub(super) fn unknown(&self, why: &str) {
        let mut edge = self.edge.lock();
        why.clone_into(&mut edge.why);
        self.publish(&mut edge);
        self.tell_down(&mut edge);
    }

    /// What a server says of itself has changed.
    pub(super) fn refreshed(&self) {
        self.publish(&mut self.edge.lock());
    }

    /// Takes a layout over. Answers the nodes that are new, for somebody to run.
    pub(super) fn lay_out(&self, layout: Layout) -> Vec<Arc<Node>> {
        let before = self.routes.load_full();
        let mut routes = Routes::default();
        let mut new = Vec::new();
        for (place, ranges) in layout {
            let index = routes.nodes.len();
            routes.ranges.extend(ranges.iter().map(|range| (*range, index)));
            let node = match before.at(&place) {
                Some(node) => {
                    node.hand(ranges);
                    Arc::clone(node)
                }
                None => {
                    let node = Arc::new(Node::new(place, ranges));
                    new.push(Arc::clone(&node));
                    node
                }
            };
            routes.nodes.push(node);
        }
        routes.ranges.sort_unstable();
        let dismissed: Vec<_> = before
            .nodes
            .iter()
            .filter(|node| routes.at(&node.place).is_none())
            .cloned()
            .collect();
        let changed = !new.is_empty() || !dismissed.is_empty();
        self.routes.store(Arc::new(routes));
        for node in dismissed {
            node.dismiss();
        }
        if changed {
            let mut edge = self.edge.lock();
            "another server is the primary now".clone_into(&mut edge.why);
            self.publish(&mut edge);
        }
        new
    }

    fn publish(&self, edge: &mut Edge) {
        let routes = self.routes.load();
        let servers: Vec<_> = routes
            .nodes
            .iter()
            .filter_map(|node| node.live())
            .map(|live| live.server())
            .collect();
        let was_up = matches!(*self.status.borrow(), Status::Up { .. });
        // At first all nodes get their chance, so that a start does not look like an outage of all but the fastest.
        let up = !servers.is_empty() && (was_up || routes.nodes.iter().all(|node| node.tried()));
        let status = if up {
            let generation = edge.generation;
            Status::Up { generation, servers }
        } else {
            Status::Down { why: edge.why.clone() }
        };
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            *now = status;
            changed
        });
        match (was_up, up) {
            (false, true) if edge.told => {
                let away = humantime::format_duration(edge.since.elapsed()).to_string();
                info!(store = self.store, away, "the store is back");
            }
            (false, true) => info!(store = self.store, "the store is reached"),
            (true, false) => {
                edge.since = Instant::now();
                edge.told = false;
                self.tell_down(edge);
            }
            (false, false) if !servers_wait(&routes) => self.tell_down(edge),
            _ => {}
        }
        if up {
            edge.told = false;
        }
    }

    fn tell_down(&self, edge: &mut Edge) {
        let up = matches!(*self.status.borrow(), Status::Up { .. });
        if up || std::mem::replace(&mut edge.told, true) {
            return;
        }
        // Generations are counted from the first connection on.
        if edge.generation == 0 {
            warn!(
                store = self.store,
                why = edge.why,
                "the store is not reached; it is tried again and again"
            );
        } else {
            warn!(
                store = self.store,
                why = edge.why,
                "the store went away; it is tried again and again"
            );
        }
    }
}

/// Whether some node has not had its chance yet.
fn servers_wait(routes: &Routes) -> bool {
    routes.nodes.iter().any(|node| !node.tried())
}
