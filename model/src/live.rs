//! Endpoints as they are now, made of endpoints as they were told: names looked up, and checks made.

use std::net::IpAddr;

use crate::cluster::{Address, Checked, Endpoint, Endpoints, Locality};

/// The most addresses of one name that become endpoints.
pub const MOST_ADDRESSES: usize = 256;

/// Endpoints with an endpoint for each address of a name, at most [`MOST_ADDRESSES`] of each; those without a name stay as they
/// are. An endpoint without a host name has the name that was looked up.
pub fn looked_up<'a>(told: &Endpoints, addresses: impl Fn(&str) -> &'a [IpAddr]) -> Endpoints {
    each(told, |endpoint, all| match &endpoint.address {
        Address::Name(name, port) => {
            let found = addresses(name).iter().take(MOST_ADDRESSES);
            all.extend(found.map(|ip| Endpoint {
                address: Address::Socket((*ip, *port).into()),
                hostname: match endpoint.hostname.as_str() {
                    "" => name.clone(),
                    own => own.to_owned(),
                },
                ..endpoint.clone()
            }));
        }
        _ => all.push(endpoint.clone()),
    })
}

/// Endpoints with what checks say of each; those are left out of which that is not `wanted`.
pub fn with_checks(
    endpoints: &Endpoints,
    wanted: impl Fn(Checked) -> bool,
    checked: impl Fn(&Endpoint) -> Checked,
) -> Endpoints {
    each(endpoints, |endpoint, all| {
        let checked = checked(endpoint);
        if wanted(checked) {
            all.push(Endpoint {
                checked,
                ..endpoint.clone()
            });
        }
    })
}

/// Endpoints of the same localities, made of each one.
fn each(endpoints: &Endpoints, make: impl Fn(&Endpoint, &mut Vec<Endpoint>)) -> Endpoints {
    let localities = endpoints.localities.iter().map(|locality| {
        let mut all = Vec::with_capacity(locality.endpoints.len());
        for endpoint in &locality.endpoints {
            make(endpoint, &mut all);
        }
        Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
            endpoints: all,
            ..*locality
        }
    });
    Endpoints {
        localities: localities.collect(),
        ..*endpoints
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn named(name: &str, hostname: &str) -> Endpoint {
        Endpoint {
            address: Address::Name(name.to_owned(), 80),
            hostname: hostname.to_owned(),
            weight: 7,
            ..Endpoint::at(([127, 0, 0, 1], 1).into())
        }
    }

    fn told() -> Endpoints {
        Endpoints {
            localities: vec![Locality {
                priority: 1,
                zone: "a".to_owned(),
                endpoints: vec![
                    named("cart", ""),
                    named("till", "till.example"),
                    Endpoint::at(([10, 0, 0, 9], 90).into()),
                ],
                ..Locality::default()
            }],
            overprovisioning: 150,
        }
    }

    #[test]
    fn every_address_is_an_endpoint() {
        let ips: Vec<IpAddr> = (1..=2).map(|last| [10, 0, 0, last].into()).collect();
        let found = looked_up(
            &told(),
            |name| if name == "cart" { &ips } else { &ips[..1] },
        );
        let all: Vec<_> = found.localities[0]
            .endpoints
            .iter()
            .map(|own| (own.address.to_string(), own.hostname.as_str(), own.weight))
            .collect();
        assert_eq!(
            all,
            [
                ("10.0.0.1:80".to_owned(), "cart", 7),
                ("10.0.0.2:80".to_owned(), "cart", 7),
                ("10.0.0.1:80".to_owned(), "till.example", 7),
                ("10.0.0.9:90".to_owned(), "", 1),
            ]
        );
        assert_eq!(
            (found.overprovisioning, found.localities[0].priority),
            (150, 1)
        );
        assert_eq!(found.localities[0].zone, "a");
    }

    #[test]
    fn a_name_has_only_so_many() {
        let ips: Vec<IpAddr> = (0..1000u32).map(|own| Ipv4Addr::from(own).into()).collect();
        assert_eq!(looked_up(&told(), |_| &ips).len(), 2 * MOST_ADDRESSES + 1);
        assert_eq!(looked_up(&told(), |_| &[]).len(), 1);
    }

    #[test]
    fn who_is_not_known_yet_may_be_left_out() {
        let all = Endpoints::at([([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into()]);
        let first = all.localities[0].endpoints[0].address.clone();
        let checked = |own: &Endpoint| match own.address == first {
            true => Checked::Passed,
            false => Checked::Pending,
        };
        assert_eq!(with_checks(&all, |_| true, checked).len(), 2);
        let left = with_checks(&all, |own| own != Checked::Pending, checked);
        assert_eq!(left.localities[0].endpoints[0].checked, Checked::Passed);
        assert_eq!(left.len(), 1);
    }
}
