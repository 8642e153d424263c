//! Upstreams: whether each address takes a connection, in TLS where requests come in TLS, and whether a token fits into what it takes.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time;

use super::Doctor;
use crate::app::assemble;
use crate::config;
use crate::proxy::upstream::Upstream;
use crate::tls::files;

const DAY: i64 = 24 * 3600;
/// Who sees that a certificate ends sooner than this has time to see to it.
const SOON: i64 = 14 * DAY;

/// Why an address cannot be spoken to.
struct Fault {
    seen: String,
    advice: &'static str,
}

impl Doctor {
    pub(super) async fn upstream(&mut self, name: &str, section: &config::Upstream) {
        self.header_bytes(name, section);
        let upstream = match assemble::upstream(name, section) {
            Ok(upstream) => upstream,
            Err(error) => return self.bad(format!("upstreams.{name}"), error.to_string(), "mend the section, or the file that it names"),
        };
        for (place, server) in section.servers.iter().enumerate() {
            let what = format!("upstreams.{name}: {server}");
            let addresses: Vec<_> = match tokio::net::lookup_host(server).await {
                Ok(addresses) => addresses.collect(),
                Err(error) => {
                    self.bad(what, format!("the name has no address: {error}"), "check the name, and DNS in this pod");
                    continue;
                }
            };
            let (mut ends, mut fault) = (Vec::new(), None);
            for address in &addresses {
                match reach(&upstream, section, place, *address).await {
                    Ok(end) => ends.extend(end),
                    Err(Fault { seen, advice }) => fault = Some((format!("{address}: {seen}"), advice)),
                }
            }
            let all = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            match (fault, ends.into_iter().min()) {
                (Some((seen, advice)), _) => self.bad(what, seen, advice),
                (None, None) => self.good(what, format!("{all} takes connections")),
                (None, Some((end, day))) => {
                    let left = end - self.clock.now().as_secs();
                    let ending = if left < 0 { format!("ended on {day}") } else { format!("ends on {day}, in {} days", left / DAY) };
                    let seen = format!("{all} takes connections in TLS; its certificate {ending}");
                    match left {
                        ..SOON => self.warn(what, seen, "see that whoever runs it renews its certificate"),
                        _ => self.good(what, seen),
                    }
                }
            }
        }
    }

    /// The caller's own headers come on top.
    fn header_bytes(&mut self, name: &str, section: &config::Upstream) {
        let Some(&line) = self.largest.get(name) else { return };
        let (what, taken) = (format!("upstreams.{name}.header_bytes"), section.header_bytes.0);
        if line <= taken {
            self.good(what, format!("a token takes {line} bytes of {taken}"));
        } else {
            let advice = "raise it, and what the app takes; or ask for fewer scopes in `token` of the routes";
            self.bad(what, format!("a token alone takes {line} bytes, the whole header section may have {taken}"), advice);
        }
    }
}

/// Connects as requests do. When the certificate that is shown ends, in TLS.
async fn reach(upstream: &Upstream, section: &config::Upstream, place: usize, address: SocketAddr) -> Result<Option<(i64, String)>, Fault> {
    let connect = section.timeouts.connect;
    let seen = match time::timeout(connect, TcpStream::connect(address)).await {
        Ok(Ok(_)) if section.tls.is_none() => return Ok(None),
        Ok(Ok(_)) => match upstream.greet(place, address).await {
            Ok(shown) => return Ok(shown.and_then(|certificate| files::end(&certificate))),
            Err(seen) => return Err(Fault { advice: advice(&seen), seen }),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {}", humantime::format_duration(connect)),
    };
    Err(Fault { seen, advice: "start the app, or mend the address" })
}

/// What to do about a handshake that fails, by rustls' words for the fault.
fn advice(fault: &str) -> &'static str {
    const OF_WORDS: [(&str, &str); 8] = [
        ("UnknownIssuer", "set `tls.ca` to the authority that issued its certificate"),
        ("BadSignature", "set `tls.ca` to the authority that issued its certificate"),
        ("not valid for", "set `tls.sni` to a name that its certificate has"),
        ("expired", "see that whoever runs it renews its certificate, and that this machine's clock is right"),
        ("not valid yet", "see that this machine's clock is right"),
        ("NoApplicationProtocol", "set `protocol` to what it speaks"),
        ("alert", "it may want a client certificate, or another one: look at `tls.certificate` and `tls.private_key`"),
        ("hangs up", "it may want a client certificate, or another one: look at `tls.certificate` and `tls.private_key`"),
    ];
    let known = OF_WORDS.iter().find(|(words, _)| fault.contains(words));
    known.map_or("see that it speaks TLS on this port, and that `tls` is as it wants it", |(_, advice)| advice)
}
