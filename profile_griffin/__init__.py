"""The files of the griffin profile, as `ipp-griffin init` puts them into the IPython folder."""
