//! Errors that the device reports out of band, kept until somebody looks.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{Error, Result};

#[derive(Debug, Clone)]
enum Fault {
    Lost(String),
    OutOfMemory(String),
    Other(String),
}

/// The first fault since the last look. A lost device stays lost.
#[derive(Debug, Clone, Default)]
pub struct FaultSlot(Arc<Mutex<Option<Fault>>>);

impl FaultSlot {
    /// Listen to a device.
    pub fn watch(device: &wgpu::Device) -> Self {
        let slot = Self::default();
        let errors = slot.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let text = error.to_string();
            errors.put(match error {
                wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory(text),
                _ => Fault::Other(text),
            });
        }));
        let lost = slot.clone();
        device.set_device_lost_callback(move |reason, message| {
            lost.put(Fault::Lost(format!("{reason:?} {message}").trim().to_owned()));
        });
        slot
    }

    fn put(&self, fault: Fault) {
        log::debug!("device fault: {fault:?}");
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let replace = match (&*slot, &fault) {
            (None, _) => true,
            (Some(Fault::Lost(_)), _) => false,
            (Some(_), Fault::Lost(_)) => true,
            (Some(_), _) => false,
        };
        if replace {
            *slot = Some(fault);
        }
    }

    /// Record a loss that was noticed elsewhere.
    pub fn lose(&self, why: &str) {
        self.put(Fault::Lost(why.to_owned()));
    }

    /// Whether the device is gone.
    pub fn is_lost(&self) -> bool {
        matches!(&*self.0.lock().unwrap_or_else(PoisonError::into_inner), Some(Fault::Lost(_)))
    }

    /// An error if something was reported; all but a loss are forgotten by it.
    pub fn check(&self) -> Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.take() {
            None => Ok(()),
            Some(Fault::Lost(why)) => {
                *slot = Some(Fault::Lost(why.clone()));
                Err(Error::DeviceLost(why))
            }
            Some(Fault::OutOfMemory(what)) => Err(Error::OutOfMemory(what)),
            Some(Fault::Other(what)) => Err(Error::Gpu(what)),
        }
    }
}
