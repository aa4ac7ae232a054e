//! Three NATS servers that are one cluster, each with its own folder and ports; any can be killed, and cut off from the
//! others if each is in a network namespace of its own.

use std::net::Ipv4Addr;

use tokio::time::timeout;

use crate::{
    Nats, eventually, free_port, get,
    nats::{ANSWER_LIMIT, Place},
    network::Network,
};

const SERVERS: usize = 3;
/// In a namespace of its own a server's ports are in nobody's way.
const CLIENT_PORT: u16 = 4222;
const HEALTH_PORT: u16 = 8222;
const ROUTE_PORT: u16 = 6222;

/// A running cluster.
pub struct NatsCluster {
    nodes: Vec<Nats>,
    /// After the servers: it goes when they have ended.
    network: Option<Network>,
}

impl NatsCluster {
    /// Three servers on 127.0.0.1, once they are one.
    ///
    /// # Panics
    /// If they do not get there.
    pub async fn start() -> Self {
        let ports: Vec<_> = (0..SERVERS).map(|_| [free_port(), free_port(), free_port()]).collect();
        let route = |server: usize| (Ipv4Addr::LOCALHOST, ports[server][2]);
        let places = (0..SERVERS).map(|server| {
            let [port, health, own] = ports[server];
            let routes = (0..SERVERS).filter(|other| *other != server).map(route);
            let more = cluster(server, (Ipv4Addr::LOCALHOST, own), (Ipv4Addr::LOCALHOST, port), routes);
            Place { host: Ipv4Addr::LOCALHOST, port, health, namespace: None, more }
        });
        Self::start_at(&places.collect::<Vec<_>>(), None).await
    }

    /// Three servers, each in a network namespace of its own, once they are one.
    ///
    /// # Panics
    /// If they do not get there, or namespaces cannot be made, as for who is not root.
    pub async fn start_apart() -> Self {
        let network = Network::new(SERVERS);
        let places = (0..SERVERS).map(|server| {
            let host = network.address(server);
            let others = (0..SERVERS).filter(|other| *other != server);
            let routes = others.map(|other| (network.address_towards(other, server), ROUTE_PORT));
            let more = cluster(server, (Ipv4Addr::UNSPECIFIED, ROUTE_PORT), (host, CLIENT_PORT), routes);
            let namespace = Some(network.namespace(server));
            Place { host, port: CLIENT_PORT, health: HEALTH_PORT, namespace, more }
        });
        Self::start_at(&places.collect::<Vec<_>>(), Some(network)).await
    }

    async fn start_at(places: &[Place], network: Option<Network>) -> Self {
        let nodes = places.iter().map(Nats::at).collect();
        let mut cluster = Self { nodes, network };
        for node in &mut cluster.nodes {
            node.restart().await;
        }
        cluster.settled().await;
        cluster
    }

    /// The addresses of all, with commas between them.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// The address of one.
    #[must_use]
    pub fn url_of(&self, server: usize) -> String {
        self.nodes[server].url()
    }

    /// How NATS calls a server, as in what it says of a stream's leader.
    #[must_use]
    pub fn name_of(&self, server: usize) -> String {
        name(server)
    }

    /// The server of that name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn named(&self, name: &str) -> usize {
        (0..SERVERS).find(|server| self.name_of(*server) == name).expect("a server of this cluster")
    }

    /// How many there are.
    #[must_use]
    pub const fn servers(&self) -> usize {
        SERVERS
    }

    /// Ends one as a crash does.
    pub async fn kill(&mut self, server: usize) {
        self.nodes[server].kill().await;
    }

    /// Starts one again on the same data, after [`Self::kill`]; it may not have caught up yet: see [`Self::settled`].
    pub async fn restart(&mut self, server: usize) {
        self.nodes[server].restart().await;
    }

    /// Forgets all that one has stored; only while it is stopped.
    pub fn wipe(&mut self, server: usize) {
        self.nodes[server].wipe();
    }

    /// Waits until all say that they lack nothing, and their leader that it has heard every one: before that the cluster
    /// may not survive the loss of one.
    pub async fn settled(&mut self) {
        for node in &mut self.nodes {
            node.ready("/healthz").await;
        }
        eventually("the leader has heard every server", async || {
            let leader = self.leader(0).await?;
            let said = self.meta(leader).await?;
            (said.matches("\"current\": true").count() == SERVERS - 1).then_some(())
        })
        .await;
    }

    /// Who leads the cluster, as one of its servers says.
    pub async fn leader(&self, server: usize) -> Option<usize> {
        let meta = self.meta(server).await?;
        let line = meta.lines().find(|line| line.contains("\"leader\""))?;
        Some(self.named(line.split('"').nth(3).filter(|name| !name.is_empty())?))
    }

    /// What one says of the cluster.
    async fn meta(&self, server: usize) -> Option<String> {
        let said = get(self.nodes[server].health(), "/jsz");
        let said = timeout(ANSWER_LIMIT, said).await.ok()?.ok()?.body;
        Some(said.split_once("\"meta_cluster\"")?.1.to_owned())
    }

    /// Pulls the cables of one to the other servers; its clients still reach it.
    ///
    /// # Panics
    /// If the cluster was not started apart.
    pub fn cut_off(&self, server: usize) {
        self.network().plug_others(server, false);
    }

    /// Pulls all cables of one.
    ///
    /// # Panics
    /// If the cluster was not started apart.
    pub fn cut_off_from_all(&self, server: usize) {
        self.network().plug_others(server, false);
        self.network().plug_clients(server, false);
    }

    /// Plugs all cables of one.
    ///
    /// # Panics
    /// If the cluster was not started apart.
    pub fn rejoin(&self, server: usize) {
        self.network().plug_others(server, true);
        self.network().plug_clients(server, true);
    }

    fn network(&self) -> &Network {
        self.network.as_ref().expect("only servers that were started apart have cables")
    }
}

fn name(server: usize) -> String {
    format!("nats-{server}")
}

/// What the configuration of a server says more than that of one alone. Each is told of every other and of where its
/// clients reach it, since it may have an address for each of them.
fn cluster(
    server: usize,
    listen: (Ipv4Addr, u16),
    clients: (Ipv4Addr, u16),
    routes: impl Iterator<Item = (Ipv4Addr, u16)>,
) -> String {
    let urls: Vec<_> = routes.map(|(host, port)| format!("\"nats-route://{host}:{port}\"")).collect();
    let urls = urls.join(", ");
    format!(
        "server_name: {}\nclient_advertise: \"{}:{}\"\n\
         cluster {{ name: keymeter, listen: \"{}:{}\", routes: [{urls}], no_advertise: true }}\n",
        name(server),
        clients.0,
        clients.1,
        listen.0,
        listen.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    #[tokio::test]
    async fn another_leads_once_the_leader_is_killed() {
        let mut cluster = NatsCluster::start().await;
        let first = cluster.leader(0).await.unwrap();
        cluster.kill(first).await;
        let other = (first + 1) % SERVERS;
        eventually("another leads", async || cluster.leader(other).await.is_some_and(|now| now != first))
            .await;
        cluster.restart(first).await;
        cluster.settled().await;
    }

    #[tokio::test]
    async fn who_is_cut_off_leads_no_more_and_leaves_nothing_behind() {
        let cluster = NatsCluster::start_apart().await;
        let namespace = cluster.network().namespace(0);
        let first = cluster.leader(0).await.unwrap();
        cluster.cut_off(first);
        let other = (first + 1) % SERVERS;
        eventually("another leads", async || cluster.leader(other).await.is_some_and(|now| now != first))
            .await;
        eventually("it notices", async || cluster.leader(first).await != Some(first)).await;
        cluster.rejoin(first);
        eventually("it hears who leads", async || {
            let (its, others) = (cluster.leader(first).await, cluster.leader(other).await);
            its.is_some() && its == others
        })
        .await;
        drop(cluster);
        assert!(!std::fs::exists(format!("/run/netns/{namespace}")).unwrap());
    }
}
