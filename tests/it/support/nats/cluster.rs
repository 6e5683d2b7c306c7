use std::{net::Ipv4Addr, time::Duration};

use async_nats::Client;
use serde_json::json;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{NatsServer, free_port, jetstream::api};
use crate::support::{
    proxy::{Proxy, Weather},
    until,
};

/// Clusters are heavy, and elections have deadlines: there is one at a time.
static TURN: Semaphore = Semaphore::const_new(1);

/// How long a cluster may take to form.
const FORMED: Duration = Duration::from_secs(30);

/// Several nats-servers with one JetStream.
pub(crate) struct Cluster {
    /// Its members; `servers[i]` is named `n<i>`.
    pub(crate) servers: Vec<NatsServer>,
    /// What is between them: `links[i][j]` carries what `i` has opened to `j`. Empty if nothing is.
    links: Vec<Vec<Option<Proxy>>>,
    turn: SemaphorePermit<'static>,
}

impl Cluster {
    /// Starts `size` servers and waits until they can hold a stream with `size` replicas.
    pub(crate) async fn start(size: usize) -> Self {
        Self::start_on(size, false).await
    }

    /// The same with a proxy in each route, so that members can be parted.
    pub(crate) async fn start_partable(size: usize) -> Self {
        Self::start_on(size, true).await
    }

    async fn start_on(size: usize, partable: bool) -> Self {
        let mut turn = TURN.acquire().await.unwrap();
        // A port that was free can be a client's of another test by now: then a member is never joined.
        for _ in 0..3 {
            let cluster = Self::launch(size, partable, turn).await;
            if timeout(FORMED, cluster.hold_a_stream()).await.is_ok() {
                return cluster;
            }
            eprintln!("a cluster did not form; another try");
            turn = cluster.give_up();
        }
        panic!("no cluster forms");
    }

    async fn launch(size: usize, partable: bool, turn: SemaphorePermit<'static>) -> Self {
        let ports: Vec<_> = (0..size).map(|_| free_port()).collect();
        let mut links = Vec::new();
        for from in 0..size {
            let mut of_one = Vec::new();
            for (to, port) in ports.iter().enumerate() {
                of_one.push(if partable && from != to {
                    Some(Proxy::start((Ipv4Addr::LOCALHOST, *port).into()).await)
                } else {
                    None
                });
            }
            links.push(of_one);
        }
        let mut servers = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let routes: Vec<_> = ports
                .iter()
                .zip(&links[index])
                .map(|(port, link)| match link {
                    Some(link) => format!("nats://{}", link.addr()),
                    None => format!("nats://127.0.0.1:{port}"),
                })
                .collect();
            let lines = format!(
                "server_name: n{index}\ncluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: {routes:?} }}"
            );
            servers.push(NatsServer::start_with(&lines).await);
        }
        Self { servers, links, turn }
    }

    fn give_up(self) -> SemaphorePermit<'static> {
        self.turn
    }

    /// Waits until it holds a stream with as many replicas as it has members.
    async fn hold_a_stream(&self) {
        let client = self.client().await;
        let probe = json!({
            "name": "PROBE", "subjects": ["probe"], "num_replicas": self.servers.len(), "storage": "memory",
        });
        until("the cluster holds a replicated stream", || async {
            let created = api(&client, "STREAM.CREATE.PROBE", &probe).await?;
            created.get("error").is_none().then_some(())
        })
        .await;
        until("the probe is gone", || async {
            let deleted = api(&client, "STREAM.DELETE.PROBE", &json!({})).await?;
            deleted.get("error").is_none().then_some(())
        })
        .await;
    }

    /// Parts a member from all others, or joins it again. Connections stay; nothing gets through.
    pub(crate) fn part(&self, member: usize, parted: bool) {
        let weather = if parted {
            Weather::BlackHole
        } else {
            Weather::Clear
        };
        for (from, links) in self.links.iter().enumerate() {
            for (to, link) in links.iter().enumerate() {
                if let Some(link) = link
                    && (from == member || to == member)
                {
                    link.set(weather);
                }
            }
        }
    }

    /// A member that is none of these.
    pub(crate) fn other_than(&self, members: &[usize]) -> usize {
        let mut all = 0..self.servers.len();
        all.find(|member| !members.contains(member)).unwrap()
    }

    /// Where clients connect.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// The member that leads a stream; waits for an election.
    pub(crate) async fn leader_of(&self, stream: &str) -> usize {
        let client = self.client().await;
        until("the stream has a leader", || async {
            let info = api(&client, &format!("STREAM.INFO.{stream}"), &json!({})).await?;
            let leader = info.pointer("/cluster/leader")?.as_str()?;
            leader.strip_prefix('n')?.parse().ok()
        })
        .await
    }

    /// Has the leader of a stream step down, and waits for the next; answers with that.
    pub(crate) async fn step_down(&self, stream: &str) -> usize {
        let client = self.client().await;
        let before = self.leader_of(stream).await;
        let what = format!("STREAM.LEADER.STEPDOWN.{stream}");
        until("the leader steps down", || async {
            let answer = api(&client, &what, &json!({})).await?;
            answer.get("error").is_none().then_some(())
        })
        .await;
        until("another member leads", || async {
            let leader = self.leader_of(stream).await;
            (leader != before).then_some(leader)
        })
        .await
    }

    /// A client of any member that runs.
    pub(crate) async fn client(&self) -> Client {
        let running = self.servers.iter().filter(|server| server.is_running());
        let urls: Vec<async_nats::ServerAddr> = running.map(|server| server.url().parse().unwrap()).collect();
        async_nats::ConnectOptions::new()
            .request_timeout(Some(Duration::from_secs(2)))
            .ignore_discovered_servers()
            .connect(urls.as_slice())
            .await
            .unwrap()
    }
}
