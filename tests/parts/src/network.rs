//! A network namespace for each of some servers, with a cable from each to this machine and one between each two, which
//! can be pulled. Wants root. Touches no interface but its own; what a killed test left is removed by the next.

use std::{
    fs,
    net::Ipv4Addr,
    process::{Command, id},
};

use crate::{free_port, port};

/// Start of the names of all namespaces; behind it come the process, a number, and the server.
const PREFIX: &str = "keymeter";
/// Carrier-grade NAT's range, which no host on the internet has: 64 addresses for each network from here on.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([100, 64, 0, 0]);
const ADDRESSES: u32 = 64;

/// The namespaces of one test.
pub(crate) struct Network {
    /// Claimed among all tests of this machine, as ports are.
    number: u16,
    servers: usize,
}

impl Network {
    /// Namespaces for so many servers, each with a cable to this machine and to every other.
    ///
    /// # Panics
    /// If they cannot be made, as for who is not root.
    pub(crate) fn new(servers: usize) -> Self {
        sweep();
        let network = Self { number: free_port(), servers };
        for server in 0..servers {
            ip(&["netns", "add", &network.namespace(server)]);
            ip(&["-n", &network.namespace(server), "link", "set", "lo", "up"]);
            let (here, there) = (network.cable("h", server, server), network.cable("g", server, server));
            let namespace = network.namespace(server);
            ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &namespace]);
            let [mine, its] = network.pair(server);
            ip(&["addr", "add", &format!("{mine}/30"), "dev", &here]);
            ip(&["link", "set", &here, "up"]);
            ip(&["-n", &namespace, "addr", "add", &format!("{its}/30"), "dev", &there]);
            ip(&["-n", &namespace, "link", "set", &there, "up"]);
        }
        for (first, second) in network.pairs() {
            network.connect(first, second);
        }
        network
    }

    fn connect(&self, first: usize, second: usize) {
        let ends = [(first, second), (second, first)];
        let [here, there] = ends.map(|(at, to)| self.cable("p", at, to));
        let [first_space, second_space] = [first, second].map(|server| self.namespace(server));
        ip(&[
            "-n",
            &first_space,
            "link",
            "add",
            &here,
            "type",
            "veth",
            "peer",
            "name",
            &there,
            "netns",
            &second_space,
        ]);
        for (at, to) in ends {
            let address = format!("{}/30", self.address_towards(at, to));
            let (namespace, cable) = (self.namespace(at), self.cable("p", at, to));
            ip(&["-n", &namespace, "addr", "add", &address, "dev", &cable]);
            ip(&["-n", &namespace, "link", "set", &cable, "up"]);
        }
    }

    /// The name that `ip netns exec` takes.
    pub(crate) fn namespace(&self, server: usize) -> String {
        format!("{PREFIX}-{}-{}-{server}", id(), self.number)
    }

    /// Where this machine reaches a server.
    pub(crate) fn address(&self, server: usize) -> Ipv4Addr {
        self.pair(server)[1]
    }

    /// Where the server `to` reaches the server `at`.
    pub(crate) fn address_towards(&self, at: usize, to: usize) -> Ipv4Addr {
        let (first, second) = (at.min(to), at.max(to));
        let cable = self.pairs().position(|pair| pair == (first, second)).expect("every two have a cable");
        self.pair(self.servers + cable)[usize::from(at > to)]
    }

    /// Pulls or plugs the cables of a server to all others.
    pub(crate) fn plug_others(&self, server: usize, is_up: bool) {
        for other in (0..self.servers).filter(|other| *other != server) {
            self.plug(server, &self.cable("p", server, other), is_up);
        }
    }

    /// Pulls or plugs the cable of a server to this machine.
    pub(crate) fn plug_clients(&self, server: usize, is_up: bool) {
        self.plug(server, &self.cable("g", server, server), is_up);
    }

    fn plug(&self, server: usize, cable: &str, is_up: bool) {
        ip(&["-n", &self.namespace(server), "link", "set", cable, if is_up { "up" } else { "down" }]);
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let servers = self.servers;
        (0..servers).flat_map(move |first| (first + 1..servers).map(move |second| (first, second)))
    }

    /// The two addresses of a cable.
    fn pair(&self, cable: usize) -> [Ipv4Addr; 2] {
        let cable = u32::try_from(cable).expect("a few servers");
        assert!(4 * cable + 4 <= ADDRESSES, "a network has room for {} cables", ADDRESSES / 4);
        let first = FIRST_ADDRESS + u32::from(self.number - port::FIRST) * ADDRESSES + 4 * cable;
        [1, 2].map(|number| Ipv4Addr::from(first + number))
    }

    /// An interface's name, at most 15 bytes: `km`, the network, what for, at whom and to whom.
    fn cable(&self, kind: &str, at: usize, to: usize) -> String {
        format!("km{}{kind}{at}{to}", self.number)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for server in 0..self.servers {
            remove(&self.namespace(server));
        }
    }
}

/// Removes what tests left whose process is gone.
fn sweep() {
    for name in fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.file_name()) {
        let name = name.to_string_lossy();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if process.is_some_and(|process| !fs::exists(format!("/proc/{process}")).unwrap_or(true)) {
            remove(&name);
        }
    }
}

/// Its cables go with it, at both ends.
fn remove(namespace: &str) {
    // Another test may be removing the same leftovers.
    let _ = Command::new("ip").args(["netns", "del", namespace]).output();
}

fn ip(arguments: &[&str]) {
    let what = arguments.join(" ");
    let output = Command::new("ip").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("`ip` is wanted (Debian: iproute2): {error}"));
    assert!(
        output.status.success(),
        "tests of a cut-off server want root and network namespaces; `ip {what}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
