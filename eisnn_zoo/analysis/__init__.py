"""Looking inside a network: probes, measures, interventions, the cost of a forward, and a report of all of them."""

from .probes import QUANTITIES, Activity, probe, record, spiking_layers, stream

__all__ = ["QUANTITIES", "Activity", "probe", "record", "spiking_layers", "stream"]
