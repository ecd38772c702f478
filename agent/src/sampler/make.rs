//! Makes every family of measurements, while the process has its privileges.

use super::SamplerOptions;
use super::block::BlockObserver;
use super::inventory::{Book, InventoryFamily, Places};
use super::memory::MemoryObserver;
use super::net::Net;
use super::numa::Numa;
use super::observe::Observer;
use super::steal::Steal;
use super::tasks::Tasks;
use super::topology::TopologyFamily;
use super::virtio::{QueueSource, Virtio};
use crate::probe::{BlockSource, Probes};

/// What a sampler works with beside the scheduler's probes.
pub struct Families {
    /// All of them.
    pub observers: Vec<Box<dyn Observer>>,
    /// Whom the VMs belong to, as the inventory knows it.
    pub book: Book,
}

impl Families {
    /// Makes them; `degraded` says why there are no probes.
    pub fn make(
        options: &SamplerOptions,
        mut probes: Option<&mut Probes>,
        degraded: Option<&str>,
    ) -> Self {
        let proc = || options.proc.clone();
        let without = || degraded.unwrap_or_default().to_owned();
        let book = Book::default();
        let block = match &mut probes {
            Some(probes) => probes
                .take_block()
                .map(|block| Box::new(block) as Box<dyn BlockSource>),
            None => Err(without()),
        };
        let queues = probes.as_mut().and_then(|p| p.take_queues());
        let queues = queues
            .map(|queues| Box::new(queues) as Box<dyn QueueSource>)
            .ok_or_else(without);
        let drops = match &mut probes {
            Some(probes) => probes.take_net(),
            None => Err(without()),
        };
        let stalls = probes.as_mut().and_then(|p| p.take_memory());
        let host = options.host.clone();
        let memory = MemoryObserver::new(host, &options.proc, &options.sys, stalls);
        let places = Places {
            proc: proc(),
            libvirt: options.libvirt.clone(),
        };
        let inventory = InventoryFamily::new(places, options.labels.clone(), book.clone());
        let observers: Vec<Box<dyn Observer>> = vec![
            Box::new(TopologyFamily::new(options.sys.clone(), proc())),
            Box::new(inventory),
            Box::new(Net::new(proc(), drops)),
            Box::new(Numa::new(proc())),
            Box::new(memory),
            Box::new(Steal::new()),
            Box::new(Tasks::new(proc())),
            Box::new(Virtio::new(queues, proc())),
            Box::new(BlockObserver::new(block, proc())),
        ];
        Self { observers, book }
    }
}
