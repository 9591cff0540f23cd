"""Publishers: where results and failures go, behind one port (`port`)."""
