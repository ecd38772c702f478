//! libvirt's state file of a running domain, `/run/libvirt/qemu/<name>.xml`:
//! what `virsh dumpxml` shows, with the metadata that OpenStack and KubeVirt
//! put there, but without asking the daemon. Owned by root, mode 0600.

use roxmltree::{Document, Node};

use super::Labels;

/// Nova's namespaces end in 1.0 and 1.1.
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/";
const KUBEVIRT: &str = "http://kubevirt.io";

/// What a state file tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// The VMM that the file is about.
    pub pid: Option<u32>,
    /// UUID of the domain, lower case.
    pub uuid: Option<String>,
    /// Its metadata.
    pub labels: Labels,
}

/// Reads a state file, or a plain `<domain>`; `None` for anything else.
#[must_use]
pub fn parse(xml: &str) -> Option<Domain> {
    let document = Document::parse(xml).ok()?;
    let root = document.root_element();
    let domain = match root.tag_name().name() {
        "domstatus" => child(root, "domain")?,
        "domain" => root,
        _ => return None,
    };
    let metadata = child(domain, "metadata");
    let of = |namespace: &str, name: &str| {
        let is = |n: &Node<'_, '_>| {
            n.tag_name().name() == name
                && n.tag_name()
                    .namespace()
                    .is_some_and(|ns| ns.starts_with(namespace))
        };
        metadata?.children().find(is)
    };
    let nova = of(NOVA, "instance").map(nova).unwrap_or_default();
    let kubevirt = of(KUBEVIRT, "kubevirt").map(kubevirt).unwrap_or_default();
    Some(Domain {
        pid: root.attribute("pid").and_then(|pid| pid.parse().ok()),
        uuid: child_text(domain, "uuid").map(|uuid| uuid.to_ascii_lowercase()),
        labels: nova.or(kubevirt),
    })
}

/// OpenStack's tenant and project are one thing by two names; who created the
/// instance is a label.
fn nova(instance: Node<'_, '_>) -> Labels {
    let owner = child(instance, "owner");
    let project = owner.and_then(|o| child(o, "project"));
    let user = owner.and_then(|o| child(o, "user"));
    let uuid = |node: Option<Node<'_, '_>>| node?.attribute("uuid").map(str::to_owned);
    let name = project
        .and_then(text)
        .or_else(|| project?.attribute("uuid").map(str::to_owned));
    let flavor = child(instance, "flavor").and_then(|f| f.attribute("name"));
    let more = [
        ("nova_name", child_text(instance, "name")),
        ("nova_project_id", uuid(project)),
        ("nova_user", user.and_then(text)),
        ("nova_user_id", uuid(user)),
    ];
    Labels {
        tenant: name.clone(),
        project: name,
        vm_type: flavor.map(str::to_owned),
        more: some(more),
        ..Labels::default()
    }
}

fn kubevirt(node: Node<'_, '_>) -> Labels {
    Labels {
        more: some([("kubevirt_uid", child_text(node, "uid"))]),
        ..Labels::default()
    }
}

fn some<const N: usize>(
    pairs: [(&str, Option<String>); N],
) -> std::collections::BTreeMap<String, String> {
    let pairs = pairs.into_iter();
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children()
        .find(|c| c.is_element() && c.tag_name().name() == name)
}

fn child_text(node: Node<'_, '_>, name: &str) -> Option<String> {
    child(node, name).and_then(text)
}

fn text(node: Node<'_, '_>) -> Option<String> {
    let text = node.text()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
