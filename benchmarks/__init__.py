"""What `make bench` measures, and the page that it writes. Figures are ratios within one run on one machine; no test asserts them."""
