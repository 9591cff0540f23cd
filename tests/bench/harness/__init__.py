"""What the benchmarks run: loads, sinks, references and the peers that infertool is compared with."""
